"""The program's edge: a mistake of ours is told like any other error."""

import subprocess
import sys

import pytest

PROGRAM = """
from narpost.cli import main

def broken(**_options):
    raise ZeroDivisionError("by accident")

main.narpost.main = broken
main.main()
"""


@pytest.mark.parametrize(("variable", "has_trace"), [("", False), ("1", True)])
def test_a_mistake_of_ours_is_one_sentence_and_a_hint(variable: str, has_trace: bool) -> None:
    """Its trace is for those who ask for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"NARPOST_DEBUG": variable},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: narpost itself failed: ZeroDivisionError: by accident\n"
        "hint: report it, with what NARPOST_DEBUG=1 shows\n"
    )
    assert ("Traceback" in done.stderr) == has_trace
