"""What must hold in the very transaction that writes DISPATCHED. Permits, limits and pacing join this list later."""

from dataclasses import dataclass
from typing import Protocol

from app.execution import kill
from app.execution.context import ExecutionContext
from app.job_safety.admission import EffectKind
from app.job_safety.state import IntentState
from app.journal.fence import is_before
from app.journal.standing import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The timestamp that is about to be pinned, with its window, in exchange milliseconds.

    `kill_epoch` is that of the kill switch when the intent was admitted; None: nobody noted it.
    """

    timestamp_ms: int
    recv_window_ms: int
    kill_epoch: int | None = None

    @property
    def fence_ms(self) -> int:
        """When the exchange starts to refuse the request."""
        return self.timestamp_ms + self.recv_window_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A condition does not hold. `is_final`: it never will again for this intent."""

    why: str
    is_final: bool = False


class Condition(Protocol):
    """One condition. Reads only; what it reads, and `standing`, are as true as the transaction that commits on it."""

    def __call__(self, context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
        """Return why not, or None."""
        ...


def within_validity(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """The last moment at which the exchange would execute the request lies within the intent's validity."""
    del context, kind
    row = standing.row
    if row.valid_until_ms is None or pin.fence_ms <= row.valid_until_ms:
        return None
    return Denied(why="validity ran out", is_final=True)


def not_killed(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """No source of the kill switch, all of them read again here, stops this kind of effect.

    The pin is older than these readings: whatever goes out does so within its limit after the switch was changed.
    """
    key, here = context.read_kill_key(), context.read_kill_here()
    why = kill.denied_at_dispatch(standing.stamp, key, here, kind, epoch=pin.kill_epoch)
    return None if why is None else Denied(why=why)


def not_canceled(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """Nobody has asked to cancel the order."""
    del context, pin
    if standing.row.cancel_requested and kind is not EffectKind.CANCEL:
        return Denied(why="canceled before it was sent", is_final=True)
    return None


def looked_up(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """After a restore, the exchange was asked for the order in this very epoch; a cancel may simply be repeated."""
    del context, pin
    stamp = standing.stamp
    if stamp.restored_at_ms is None or kind is EffectKind.CANCEL or not is_before(standing.row.fence, stamp.epoch):
        return None
    return Denied(why="the journal was restored: it is looked up first")


def symbol_open(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """No quarantined order closes the symbol for what opens risk; nor one in doubt, if the policy says so."""
    del context, pin
    if kind is not EffectKind.OPEN or standing.closed_by is None:
        return None
    return Denied(why=f"{standing.row.symbol} is closed until {standing.closed_by} is settled")


CONDITIONS: tuple[Condition, ...] = (within_validity, not_killed, not_canceled, looked_up, symbol_open)


def closing_states(context: ExecutionContext) -> tuple[IntentState, ...]:
    """Return the states in which an order closes its symbol for new ones that open risk."""
    return (IntentState.QUARANTINED, *((IntentState.IN_DOUBT,) if context.doubt_closes_symbol else ()))


def first_denied(context: ExecutionContext, standing: Standing, kind: EffectKind, pin: Pin) -> Denied | None:
    """Return the first condition that does not hold, or None."""
    for condition in CONDITIONS:
        denied = condition(context, standing, kind, pin)
        if denied is not None:
            return denied
    return None
