"""Rows of the journal as values."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from app.job_safety.outcome import Venue
from app.job_safety.retry_metrics import job_type_of
from app.job_safety.state import IntentState


class IntentRow(NamedTuple):
    """One intent as the journal knows it. `content` is its canonical JSON; `run_at_ms` None means: nothing to do.

    The fields are the columns, in their order. A tuple, since a frozen dataclass of so many takes five times as long
    to make, and an order makes five of them.
    """

    key: str
    type: str
    state: IntentState
    attempt: int
    fence: int
    queue: str
    venue: Venue | None
    symbol: str | None
    content: str
    content_hash: str
    client_order_id: str | None
    exchange_order_id: int | None
    is_algo: bool
    actual_order_id: int | None
    parent_key: str | None
    leg: str | None
    opens_risk: bool
    valid_until_ms: int | None
    run_at_ms: int | None
    not_before_ms: int
    cancel_requested: bool
    executed_quantity: Decimal | None
    average_price: Decimal | None
    exchange_status: str | None
    reason: str | None
    rescues: int
    snoozes: int
    in_doubt_since_ms: int | None
    answered_doubt_ms: int
    watch_until_ms: int | None
    booked_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int
    finished_at_ms: int | None

    @property
    def job_type(self) -> str:
        """What kind of work this is, in metrics."""
        return job_type_of(self.type, self.venue)

    @property
    def trading_id(self) -> int:
        """The exchange's id of the order that trades: a conditional one places another; -1 if none is known."""
        return self.actual_order_id or self.exchange_order_id or -1


class AttemptRow(NamedTuple):
    """One try to dispatch. `outcome`: None while nobody knows, else its answer's certainty, or ABSENT by evidence.

    The fields are the columns, in their order.
    """

    key: str
    attempt: int
    owner: str
    fence: int
    client_order_id: str
    timestamp_ms: int
    recv_window_ms: int
    payload_hash: str
    config_hash: str
    dispatched_at_ms: int
    outcome: str | None = None
    settled_at_ms: int | None = None
    settled_by: str | None = None
    unknown_at_ms: int | None = None
    failure_class: str | None = None
    rule: str | None = None
    http_status: int | None = None
    code: int | None = None
    answer: str | None = None
    retry_delay_ms: int | None = None
    evidence: str | None = None
    seal: int | None = None
    """The row of the audit trail that seals it as it stands."""

    @property
    def fence_ms(self) -> int:
        """Exchange time after which the exchange refuses this request."""
        return self.timestamp_ms + self.recv_window_ms

    @property
    def ended_by_own_answer(self) -> bool:
        """Whether its own answer said that it was not executed."""
        return self.outcome in {"NOT_SENT", "REFUSED"}


def intent_row(values: Sequence[Any]) -> IntentRow:
    """Return the typed form of a database row: the values of all columns, in their order."""
    key, kind, state, attempt, fence, queue, venue, *rest = values
    known = _VENUES.get(venue) or Venue(venue) if venue else None  # one that is not known is refused by its name
    return IntentRow(key, kind, _STATES[state], attempt, fence, queue, known, *rest)


_STATES: Final = {state.value: state for state in IntentState}
_VENUES: Final = {venue.value: venue for venue in Venue}


def attempt_row(row: Mapping[str, Any]) -> AttemptRow:
    """Return the typed form of a database row."""
    return AttemptRow(**row)
