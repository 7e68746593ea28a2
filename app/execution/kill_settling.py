"""What may still be on the wire when the kill switch is thrown, and waiting until it has settled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from app.clock import Clock
from app.job_safety.admission import EffectKind
from app.job_safety.kill_switch import ALLOWED, KillState
from app.job_safety.state import IntentState
from app.journal import intents
from app.journal.engine import Journal
from app.journal.rows import IntentRow

LOOK_S: Final = 0.05
LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One request that may be on the wire."""

    key: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """How what was in flight stands: settled, still in flight, or in doubt (quarantined included)."""

    settled: int
    in_flight: tuple[str, ...]
    in_doubt: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.in_flight and not self.in_doubt


def kind_of(row: IntentRow) -> EffectKind:
    """Return what the effect of an order or a cancel may do to our risk."""
    if row.type == "cancel":
        return EffectKind.CANCEL
    return EffectKind.OPEN if row.opens_risk else EffectKind.REDUCE


def in_flight(connection: Connection, state: KillState) -> list[Flight]:
    """Return what `state` forbids and what was dispatched without an answer so far.

    Read in the transaction that changed the switch, this is complete: nothing is dispatched after it.
    """
    rows = intents.in_states(connection, [IntentState.DISPATCHED], limit=LIMIT)
    return [Flight(key=row.key, attempt=row.attempt) for row in rows if kind_of(row) not in ALLOWED[state]]


def look(connection: Connection, flights: Sequence[Flight]) -> Landing:
    """Return how these requests stand now."""
    flying, doubtful = [], []
    for flight in flights:
        row = intents.load(connection, flight.key)
        if row.attempt != flight.attempt:
            continue
        if row.state is IntentState.DISPATCHED:
            flying.append(flight.key)
        elif row.state in {IntentState.IN_DOUBT, IntentState.QUARANTINED}:
            doubtful.append(flight.key)
    settled = len(flights) - len(flying) - len(doubtful)
    return Landing(settled=settled, in_flight=tuple(flying), in_doubt=tuple(doubtful))


def wait(
    journal: Journal,
    clock: Clock,
    flights: Sequence[Flight],
    *,
    timeout_s: float,
    meanwhile: Callable[[], object] | None = None,
) -> Landing:
    """Wait until all of it has settled, at most `timeout_s`; return how it stands then.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    deadline = clock.monotonic() + timeout_s
    while True:
        with journal.read() as connection:
            landing = look(connection, flights)
        if landing.is_over or clock.monotonic() >= deadline:
            return landing
        if meanwhile is not None:
            meanwhile()
        clock.sleep(LOOK_S)
