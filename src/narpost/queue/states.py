"""How an entry stands with one cache, and which moves there are."""

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where an entry stands; values are the words in the ledger and on the screen."""

    WAITING = "waiting"
    IN_HAND = "in hand"
    CONFIRMED = "confirmed"
    SET_ASIDE = "set aside"


class Move(Enum):
    """What can happen to an entry."""

    CLAIM = "claim"
    CONFIRM = "confirm"
    POSTPONE = "postpone"
    PUT_BACK = "put back"
    SET_ASIDE = "set aside"
    RETRY = "retry"


MOVES: Mapping[tuple[State, Move], State] = {
    (State.WAITING, Move.CLAIM): State.IN_HAND,
    (State.WAITING, Move.RETRY): State.WAITING,
    (State.WAITING, Move.SET_ASIDE): State.SET_ASIDE,
    (State.IN_HAND, Move.CONFIRM): State.CONFIRMED,
    (State.IN_HAND, Move.POSTPONE): State.WAITING,
    (State.IN_HAND, Move.PUT_BACK): State.WAITING,
    (State.IN_HAND, Move.SET_ASIDE): State.SET_ASIDE,
    (State.SET_ASIDE, Move.RETRY): State.WAITING,
}


def moved(state: State, move: Move) -> State:
    """The state after *move*; a move that is not in the table is a mistake of ours."""
    return MOVES[state, move]
