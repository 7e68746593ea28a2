"""The kill switch as one process sees it: what every source says now, and the journal brought up to it.

Redis key, file and environment are read where an order is about to go out, so that each stops at once and without the
journal's help. The journal keeps what they said: a source that falls silent releases nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.clock import Clock
from app.job_safety import kill_key, kill_switch
from app.job_safety.admission import EffectKind
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_key import KillKey
from app.job_safety.kill_switch import ALLOWED, KillSource, KillState
from app.journal import kill_latches
from app.journal.engine import Journal
from app.journal.kill_latches import Change, Changed
from app.journal.meta import Meta
from app.observability.recorder import Recorder

GATE: Final = "kill_switch"
JOURNAL: Final = "journal"

_STATES: Final = {state.value: state for state in KillState}

Here = Mapping[str, KillState]
"""What the sources of this machine say: file and environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """The switch of one installation, for one process."""

    journal: Journal
    key: KillKey | None
    read_here: Callable[[], Here]
    clock: Clock
    record: Recorder
    owner: str
    config_hash: str

    def mirror(self) -> list[Changed]:
        """Latch in the journal what key, file and environment say; return what that changed.

        Raises:
            StoreUnavailableError: the journal does not answer. (A Redis that does not is passed over: what cannot be
                read stops what opens risk by itself.)
        """
        wishes: list[Change] = []
        value = self.read_key()
        if kill_key.is_of_a_person(value):
            wishes.append(self._wish(KillSource.REDIS_KEY, kill_switch.parse(value), "by Redis key", f"set to {value}"))
        for source, state in self.read_here().items():
            if state is not KillState.RUN:  # a file that is gone, and a variable that is unset, release nothing
                wishes.append(self._wish(KillSource(source), state, f"by {source}", f"seen by {self.owner}"))
        if not wishes:
            return []
        with self.journal.read() as connection:
            present = {latch.source: latch.state for latch in kill_latches.held(connection)}
        news = [wish for wish in wishes if present.get(wish.source, KillState.RUN) is not wish.state]
        return [changed for wish in news if (changed := self.change(wish)) is not None]

    def change(self, wish: Change) -> Changed | None:
        """Set or release one source's latch, in a transaction of its own, and leave the traces."""
        with self.journal.write() as connection:
            changed = kill_latches.change(connection, wish, now_ms=self.clock.now_ms())
        self.tell(wish, changed)
        return changed

    def tell(self, wish: Change, changed: Changed | None) -> None:
        """Log and count a change that is committed."""
        if changed is not None:
            self.record.event(
                "kill_switch_changed", level="warning", from_state=changed.before.value, to_state=changed.after.value,
                source=wish.source.value, by=wish.actor, reason=wish.reason, epoch=changed.epoch,
            )  # fmt: skip

    def read_key(self) -> str | None:
        """Return what the Redis key says; None if it is not there or cannot be read."""
        if self.key is None:
            return None
        try:
            return self.key.read()
        except StoreUnavailableError:
            return None

    def _wish(self, source: KillSource, state: KillState, actor: str, reason: str) -> Change:
        return Change(source=source, state=state, actor=actor, reason=reason[:200], config_hash=self.config_hash)


def denied(readings: Mapping[str, KillState], kind: EffectKind) -> str | None:
    """Return why the strictest of `readings` forbids this kind of effect, as `kill_switch:state:source`, or None."""
    state, source = kill_switch.ruling(readings)
    return None if kind in ALLOWED[state] else f"{GATE}:{state.value.lower()}:{source}"


def denied_before_admission(stamp: Meta, here: Here, kind: EffectKind) -> str | None:
    """Return why journal, file or environment forbid it already, or None. Redis' part is in the admission itself."""
    return denied({JOURNAL: _STATES[stamp.kill_state], **here}, kind)


def denied_at_dispatch(stamp: Meta, key: KillState, here: Here, kind: EffectKind, *, epoch: int | None) -> str | None:
    """Return why the switch, all of it read again, forbids the dispatch, or None.

    What opens risk must also have been admitted in the present kill epoch: whatever was under way while the switch went
    on and off again is asked anew.
    """
    why = denied({JOURNAL: _STATES[stamp.kill_state], KillSource.REDIS_KEY: key, **here}, kind)
    if why is None and kind is EffectKind.OPEN and epoch is not None and epoch != stamp.kill_epoch:
        return f"{GATE}:changed:epoch {epoch} is over"
    return why
