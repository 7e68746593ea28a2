"""How the kill switch stands: what every source holds in the journal, what it says now, and what is still unsettled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from app.clock import from_ms
from app.execution.kill import Here
from app.job_safety import kill_key, kill_switch
from app.job_safety.kill_switch import ALLOWED, KillSource, KillState, strictest
from app.job_safety.state import IntentState
from app.journal import intents, kill_latches, meta
from app.journal.kill_latches import Latch
from app.journal.rows import IntentRow

LIMIT: Final = 10_000
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Who holds the switch, in the names and words that every page and command uses.

    Attributes:
        state: The most restrictive of everything.
        latches: What the journal holds, by source.
        says_now: What Redis key, file and environment say themselves; `unreadable` restricts as REDUCE_ONLY.
    """

    state: KillState
    latches: Mapping[KillSource, Latch]
    says_now: Mapping[KillSource, str]

    def holders(self) -> list[KillSource]:
        """Return the sources that hold the switch or restrict it now."""
        return [source for source, state in self.by_source().items() if state is not KillState.RUN]

    def by_source(self) -> dict[KillSource, KillState]:
        """Return for each source the stricter of what it holds and what it says now."""
        return {source: strictest(self._holds(source), self._says(source)) for source in KillSource}

    def words(self, source: KillSource) -> str:
        """Return what a source holds, since when, by whom and why; or what it says, if it holds less."""
        latch = self.latches.get(source)
        if latch is None or self._says(source).rank > latch.state.rank:
            return f"{source.value} says {self.says_now.get(source, KillState.RUN.value)}"
        since = from_ms(latch.since_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{source.value} holds {latch.state.value} since {since}, by {latch.actor}: {latch.reason}"

    def _holds(self, source: KillSource) -> KillState:
        return self.latches[source].state if source in self.latches else KillState.RUN

    def _says(self, source: KillSource) -> KillState:
        said = self.says_now.get(source, KillState.RUN.value)
        return KillState.REDUCE_ONLY if said == UNREADABLE else KillState(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillStatus(Holding):
    """The switch at one moment, and what is still unsettled.

    Attributes:
        epoch: The kill epoch in the journal.
        unsettled: How many orders and cancels are in each state in which they may have been executed.
    """

    epoch: int
    unsettled: Mapping[IntentState, int]

    def fields(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {
            "state": self.state.value,
            "allows": sorted(kind.value for kind in ALLOWED[self.state]),
            "epoch": self.epoch,
            "sources": {source.value: self._source(source) for source in KillSource},
            "in_flight": self.unsettled[IntentState.DISPATCHED],
            "in_doubt": self.unsettled[IntentState.IN_DOUBT],
            "quarantined": self.unsettled[IntentState.QUARANTINED],
        }

    def _source(self, source: KillSource) -> dict[str, object]:
        latch = self.latches.get(source)
        return {
            "holds": latch.state.value if latch else KillState.RUN.value,
            "says_now": self.says_now.get(source),
            "by": latch.actor if latch else None,
            "reason": latch.reason if latch else None,
            "since_ms": latch.since_ms if latch else None,
        }


def look(connection: Connection, *, key: str | None, key_is_readable: bool, here: Here) -> KillStatus:
    """Return how the switch stands.

    Args:
        connection: To the journal.
        key: What the Redis key says; None: it is not there.
        key_is_readable: Whether Redis has told.
        here: What file and environment say.
    """
    stamp = meta.load(connection)
    held = holding(
        kill_latches.held(connection),
        journal=KillState(stamp.kill_state),
        key=key,
        key_is_readable=key_is_readable,
        here=here,
    )
    return KillStatus(
        state=held.state,
        epoch=stamp.kill_epoch,
        latches=held.latches,
        says_now=held.says_now,
        unsettled={state: len(_rows(connection, state)) for state in UNSETTLED},
    )


def holding(
    latches: Sequence[Latch], *, journal: KillState, key: str | None, key_is_readable: bool, here: Here
) -> Holding:
    """Return who holds the switch.

    Args:
        latches: All that the journal holds.
        journal: What the journal says as a whole.
        key: As for `look`.
        key_is_readable: The same.
        here: The same.
    """
    by_source = {latch.source: latch for latch in latches}
    key_state = kill_switch.parse(key) if key_is_readable else KillState.REDUCE_ONLY
    says = {
        KillSource.REDIS_KEY: _of_key(key, key_state, by_source) if key_is_readable else UNREADABLE,
        **{KillSource(name): state.value for name, state in here.items()},
    }
    readings = {"journal": journal, KillSource.REDIS_KEY: key_state, **here}
    return Holding(state=kill_switch.ruling(readings)[0], latches=by_source, says_now=says)


UNSETTLED: Final = (IntentState.DISPATCHED, IntentState.IN_DOUBT, IntentState.QUARANTINED)


def unsettled(connection: Connection) -> list[str]:
    """Return what stands in the way of a resume, in words: whatever may have been executed and is not settled."""
    return [f"{row.key} is {row.state.value}" for state in UNSETTLED for row in _rows(connection, state)]


def _rows(connection: Connection, state: IntentState) -> list[IntentRow]:
    return intents.in_states(connection, [state], limit=LIMIT)


def _of_key(value: str | None, state: KillState, latches: Mapping[KillSource, Latch]) -> str:
    """Return what the key says of its own: the name that our command line wrote is the operator's latch, once more."""
    operator = latches.get(KillSource.OPERATOR)
    is_echo = operator is not None and kill_key.named(value) is operator.state
    return KillState.RUN.value if is_echo else state.value
