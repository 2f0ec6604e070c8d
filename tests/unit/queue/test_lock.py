"""One daemon works on one queue."""

from pathlib import Path

import pytest

from narpost.errors import UsageError
from narpost.queue.lock import DaemonLock


def no_sleep(_seconds: float) -> None:
    """Go on at once."""


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path: Path) -> None:
    """To ask makes no file, and needs none."""
    assert not DaemonLock(tmp_path).is_held()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_taken_is_held_for_all_to_see(tmp_path: Path) -> None:
    """Those who ask see it, and asking does not take it away."""
    lock = DaemonLock(tmp_path)

    lock.take()

    assert DaemonLock(tmp_path).is_held()
    assert DaemonLock(tmp_path).is_held()
    lock.release()


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    """It is told on which queue the first one works."""
    first, second = DaemonLock(tmp_path), DaemonLock(tmp_path)
    first.take()

    with pytest.raises(UsageError, match="another narpost daemon") as caught:
        second.take(no_sleep)

    assert str(tmp_path) in caught.value.message
    assert first.is_held()
    first.release()


def test_a_lock_that_was_released_can_be_taken(tmp_path: Path) -> None:
    """The file stays, and tells nothing by itself."""
    first, second = DaemonLock(tmp_path), DaemonLock(tmp_path)
    first.take()
    first.release()
    was_held = first.is_held()

    second.take(no_sleep)

    assert not was_held
    assert first.is_held()
    second.release()


def test_a_lock_is_waited_for_while_somebody_only_asks(tmp_path: Path) -> None:
    """A holder that goes away during the first pause does not keep a daemon from starting."""
    first, second = DaemonLock(tmp_path), DaemonLock(tmp_path)
    first.take()

    second.take(lambda _seconds: first.release())

    assert first.is_held()
    second.release()


def test_releasing_twice_does_no_harm(tmp_path: Path) -> None:
    """Who cleans up need not know whether it was taken."""
    lock = DaemonLock(tmp_path)
    lock.take()

    lock.release()
    lock.release()

    assert not lock.is_held()
