"""The program: finds the command, and turns errors into one sentence, a hint and a code."""

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping

import click

from narpost import __version__
from narpost.cli.say import INTERRUPTED, SOME_FAILED, USAGE, exit_code, say_error
from narpost.errors import NarpostError, UsageError

_COMMANDS: Mapping[str, str] = {
    "keygen": "Make a key pair that signs what is posted.",
    "setup": "Put narpost on this machine: config, hook, and the line in nix.conf.",
    "daemon": "Post what is queued.",
    "push": "Queue paths, and wait until they are posted.",
    "wait": "Wait until paths are posted.",
    "queue": "Look into the queue, and mend it.",
    "status": "Show the queue and its caches.",
}


class _Commands(click.Group):
    """Commands by name, each in a module of its own that is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"narpost.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="narpost")
def narpost() -> None:
    """Post every Nix and Lix build to your binary cache.

    Signed, checked, outside of the build loop, and never lost.
    """


def main() -> None:
    """Run a command, and exit with the code that its end calls for."""
    code = _run()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Not sys.exit: a thread of the object-store library that still runs would abort an
    # interpreter that is being taken down (SIGABRT in 2 of 25 runs of a plain script).
    os._exit(code)


def _run() -> int:
    try:
        return narpost.main(standalone_mode=False) or 0
    except NarpostError as error:
        say_error(error)
        return exit_code(error)
    except click.UsageError as error:
        program = error.ctx.command_path if error.ctx else "narpost"
        say_error(UsageError(error.format_message(), f"see {program} --help"))
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return SOME_FAILED
    except Exception as error:  # The edge: a mistake of ours is told like any other error.
        if os.environ.get("NARPOST_DEBUG"):
            import traceback

            traceback.print_exc()
        message = f"narpost itself failed: {type(error).__name__}: {error}"
        say_error(NarpostError(message, "report it, with what NARPOST_DEBUG=1 shows"))
        return SOME_FAILED
