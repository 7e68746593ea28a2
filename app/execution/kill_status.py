"""How the kill switch stands: what every source holds in the journal, what it says now, and what is still unsettled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from app.execution.kill import Here
from app.job_safety import kill_key, kill_switch
from app.job_safety.kill_switch import ALLOWED, KillSource, KillState
from app.job_safety.state import IntentState
from app.journal import intents, kill_latches, meta
from app.journal.kill_latches import Latch
from app.journal.rows import IntentRow

LIMIT: Final = 10_000
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillStatus:
    """The switch at one moment.

    Attributes:
        state: The most restrictive of everything.
        epoch: The kill epoch in the journal.
        latches: What the journal holds, by source.
        says_now: What Redis key, file and environment say themselves; `unreadable` restricts as REDUCE_ONLY.
        unsettled: How many orders and cancels are in each state in which they may have been executed.
    """

    state: KillState
    epoch: int
    latches: Mapping[KillSource, Latch]
    says_now: Mapping[KillSource, str]
    unsettled: Mapping[IntentState, int]

    def holders(self) -> list[KillSource]:
        """Return the sources that hold the switch or restrict it now."""
        return [
            source
            for source in KillSource
            if (source in self.latches and self.latches[source].state is not KillState.RUN)
            or self.says_now.get(source, KillState.RUN.value) != KillState.RUN.value
        ]

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
    latches = {latch.source: latch for latch in kill_latches.held(connection)}
    stamp = meta.load(connection)
    key_state = kill_switch.parse(key) if key_is_readable else KillState.REDUCE_ONLY
    says = {
        KillSource.REDIS_KEY: _of_key(key, key_state, latches) if key_is_readable else UNREADABLE,
        **{KillSource(name): state.value for name, state in here.items()},
    }
    readings = {"journal": KillState(stamp.kill_state), KillSource.REDIS_KEY: key_state, **here}
    return KillStatus(
        state=kill_switch.ruling(readings)[0],
        epoch=stamp.kill_epoch,
        latches=latches,
        says_now=says,
        unsettled={state: len(_rows(connection, state)) for state in UNSETTLED},
    )


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
