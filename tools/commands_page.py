"""Writes the page of all commands from their own `--help`."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("narpost")


def page() -> str:
    """The page, in Markdown."""
    overview = _help()
    names = overview.partition("Commands:\n")[2].split("\n")
    commands = [line.split()[0] for line in names if line.startswith("  ") and line[2] != " "]
    parts = ["# Commands\n\nWritten by `make docs` from the commands' own `--help`.\n"]
    parts.append(_block("narpost", overview))
    parts += [_block(f"narpost {name}", _help(name)) for name in commands]
    return "\n".join(parts)


def _help(*command: str) -> str:
    return subprocess.run(
        [PROGRAM, *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    ).stdout


def _block(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
