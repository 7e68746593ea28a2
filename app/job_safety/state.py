"""The states of an intent and the moves between them. States are data; a move happens by compare-and-set only."""

from enum import StrEnum
from typing import Final

from app.job_safety.errors import IllegalTransitionError


class IntentState(StrEnum):
    """Where an intent stands. The values are stored in the journal: never rename one."""

    RECEIVED = "RECEIVED"
    """Journaled, nothing sent. A worker moves it on. A crash here leaves a row that the sweeper delivers again."""

    DISPATCHED = "DISPATCHED"
    """A request may be on the wire. Its owner settles it; a crash leaves it to reconcile. Never sent from here."""

    IN_DOUBT = "IN_DOUBT"
    """Dispatched, and no answer settles whether it was executed. Only reconcile, proof or a person moves it on."""

    RETRY_WAIT = "RETRY_WAIT"
    """Every attempt so far is proven not executed. Delivered again at `run_at_ms`, within validity."""

    ACCEPTED = "ACCEPTED"
    """The exchange took the order and nothing of it is known to be filled. Followed until it is finished."""

    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    """Some of it is filled. Followed until it is finished."""

    FILLED = "FILLED"
    """Finished: all of it is executed."""

    CANCELED = "CANCELED"
    """Finished: canceled at the exchange; what was filled before is booked."""

    EXPIRED_BY_EXCHANGE = "EXPIRED_BY_EXCHANGE"
    """Finished: the exchange let it lapse (IOC rest, self-trade prevention); what was filled before is booked."""

    REJECTED = "REJECTED"
    """Finished: the exchange said no to every attempt, each by its own answer."""

    EXPIRED = "EXPIRED"
    """Finished: its validity ran out, or it was canceled, before it was ever executed."""

    QUARANTINED = "QUARANTINED"
    """Undecidable by itself: shown, alerted on, still under reconcile, and waiting for a person's verdict."""

    SIMULATED = "SIMULATED"
    """Finished: mode dry_run did everything but the sending."""

    DONE = "DONE"
    """Finished: a cancel, a book job or a signal has had its effect."""


S = IntentState

ON_EXCHANGE: Final = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED, S.FILLED, S.CANCELED, S.EXPIRED_BY_EXCHANGE})
"""States that say: the exchange has, or had, this order."""

LIVE: Final = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED})
"""On the exchange and not finished: followed by polling."""

TERMINAL_STATES: Final = frozenset(
    {S.FILLED, S.CANCELED, S.EXPIRED_BY_EXCHANGE, S.REJECTED, S.EXPIRED, S.SIMULATED, S.DONE}
)

SENDABLE: Final = frozenset({S.RECEIVED, S.RETRY_WAIT})
"""The only states from which a request may be dispatched."""

DOUBTFUL: Final = frozenset({S.DISPATCHED, S.IN_DOUBT, S.QUARANTINED})
"""An attempt may have been executed and nobody knows."""

_PROOF = {
    # Proof of execution is welcome from anyone, in any state, finished ones included: it reopens the row.
    (before, after)
    for before in S
    for after in ON_EXCHANGE
    if before not in {S.DONE, S.SIMULATED} and not (before in ON_EXCHANGE and after == S.ACCEPTED)
}

ORDER_TRANSITIONS: Final = frozenset(
    _PROOF
    | {
        (S.RECEIVED, S.DISPATCHED),
        (S.RETRY_WAIT, S.DISPATCHED),
        (S.RECEIVED, S.SIMULATED),
        (S.RECEIVED, S.EXPIRED),
        (S.RETRY_WAIT, S.EXPIRED),
        (S.DISPATCHED, S.RECEIVED),  # NOT_SENT on the first attempt by a closed gate: a snooze, not a retry
        (S.DISPATCHED, S.RETRY_WAIT),  # NOT_SENT or a retryable REFUSED, and no earlier attempt is open
        (S.DISPATCHED, S.REJECTED),  # REFUSED, and every earlier attempt ended by its own answer
        (S.DISPATCHED, S.IN_DOUBT),  # UNKNOWN, a dead owner, or a refusal while an earlier attempt is open
        (S.IN_DOUBT, S.RETRY_WAIT),  # proven absent, evidence a to e
        (S.IN_DOUBT, S.EXPIRED),  # the lesser evidence: closed, never resent
        (S.IN_DOUBT, S.REJECTED),  # all attempts ended by their own answers after all
        (S.IN_DOUBT, S.QUARANTINED),
        (S.RECEIVED, S.QUARANTINED),  # poison: rescued too often without a state change
        (S.RETRY_WAIT, S.QUARANTINED),
        (S.QUARANTINED, S.EXPIRED),  # proof of absence, or a person's "not executed"
    }
)

CANCEL_TRANSITIONS: Final = frozenset(
    {
        (S.RECEIVED, S.DISPATCHED),
        (S.RETRY_WAIT, S.DISPATCHED),
        (S.IN_DOUBT, S.DISPATCHED),  # a cancel is repeatable: sending it again cannot hurt
        (S.DISPATCHED, S.DISPATCHED),  # the same, after a dead owner
        (S.DISPATCHED, S.DONE),
        (S.DISPATCHED, S.REJECTED),
        (S.DISPATCHED, S.IN_DOUBT),
        (S.DISPATCHED, S.RETRY_WAIT),
        (S.RECEIVED, S.DONE),  # its order is finished, or was never sent and is closed instead
        (S.RETRY_WAIT, S.DONE),
        (S.IN_DOUBT, S.DONE),
        (S.RECEIVED, S.REJECTED),  # no such order
        (S.RECEIVED, S.SIMULATED),
        (S.RECEIVED, S.EXPIRED),
        (S.RETRY_WAIT, S.EXPIRED),
        (S.RECEIVED, S.QUARANTINED),
        (S.IN_DOUBT, S.QUARANTINED),
        (S.QUARANTINED, S.DONE),
    }
)

BOOK_TRANSITIONS: Final = frozenset(
    {
        (S.RECEIVED, S.DONE),
        (S.RECEIVED, S.REJECTED),
        (S.RECEIVED, S.EXPIRED),
        (S.RECEIVED, S.QUARANTINED),
        (S.QUARANTINED, S.RECEIVED),  # a person lets it run again: its effect and its end are one transaction
        (S.QUARANTINED, S.EXPIRED),  # a person gives it up
    }
)


def transitions_of(intent_type: str) -> frozenset[tuple[IntentState, IntentState]]:
    """Return the allowed moves of an intent type: `order`, `cancel`, or any book job or signal."""
    if intent_type == "order":
        return ORDER_TRANSITIONS
    return CANCEL_TRANSITIONS if intent_type == "cancel" else BOOK_TRANSITIONS


def advance(intent_type: str, before: IntentState, after: IntentState) -> IntentState:
    """Return `after` if the move is allowed.

    Raises:
        IllegalTransitionError: the state machine of `intent_type` has no such move.
    """
    if (before, after) not in transitions_of(intent_type):
        raise IllegalTransitionError(f"{intent_type}: {before} -> {after} is not a move of this state machine")
    return after
