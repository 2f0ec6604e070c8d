"""Writes the page of all commands from their own `--help`."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("narpost")


def page() -> str:
    """The page, in Markdown."""
    title = "# Commands\n\nWritten by `make docs` from the commands' own `--help`.\n"
    return "\n".join([title, *_blocks()])


def _blocks(*command: str) -> list[str]:
    """A block for *command*, and for those below it."""
    text = _help(*command)
    lines = text.partition("Commands:\n")[2].split("\n")
    names = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    below = [block for name in names for block in _blocks(*command, name)]
    return [_block(" ".join(("narpost", *command)), text), *below]


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
