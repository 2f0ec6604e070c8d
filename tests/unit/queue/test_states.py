"""How an entry stands with one cache, and the moves there are."""

import itertools

import pytest

from narpost.queue.states import MOVES, Move, State, moved

REFUSED = [each for each in itertools.product(State, Move) if each not in MOVES]


def test_the_way_of_a_path_that_is_posted() -> None:
    """It waits, is taken in hand, fails once, is taken again, and is confirmed."""
    state = State.WAITING

    for move in (Move.CLAIM, Move.POSTPONE, Move.CLAIM, Move.CONFIRM):
        state = moved(state, move)

    assert state is State.CONFIRMED


def test_what_was_set_aside_can_be_tried_again() -> None:
    """A person's word puts it back among those that wait."""
    aside = moved(moved(State.WAITING, Move.CLAIM), Move.SET_ASIDE)

    assert moved(aside, Move.RETRY) is State.WAITING


def test_nothing_leads_away_from_what_is_confirmed() -> None:
    """A cache that has a path keeps it, as far as the queue is concerned."""
    assert {state for state, _move in MOVES}.isdisjoint({State.CONFIRMED})


@pytest.mark.parametrize(("state", "move"), REFUSED)
def test_a_move_that_is_not_in_the_table_is_refused(state: State, move: Move) -> None:
    """It is a mistake of ours, and is not passed over."""
    with pytest.raises(KeyError):
        moved(state, move)
