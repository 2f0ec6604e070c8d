"""How a command tells what was not posted, and the exit code that goes with it."""

from narpost.cli.say import SOME_FAILED, exit_code, name_failed, say_error
from narpost.daemon.daemon import Outcome


def report(outcome: Outcome) -> int:
    """A line for each path that is left, and what ails the cache."""
    if not outcome.left:
        return 0
    name_failed(outcome.left)
    if outcome.trouble is None:
        return SOME_FAILED
    say_error(outcome.trouble)
    return exit_code(outcome.trouble)
