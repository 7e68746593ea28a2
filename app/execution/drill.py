"""A drill: proves that the kill switch fires on the real path, and puts everything back as it was.

Two small orders of its own go the way of every order, as far as the switch lets them. The first is admitted, then the
journal is latched, and the transaction that writes DISPATCHED must refuse it. For the second the Redis key says HALT,
and admission must refuse it. What has to be restored is noted in the journal beforehand: if the drill's process dies,
whoever looks at the note after the drill's time is over restores it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection

from app.execution import opening
from app.execution.context import ExecutionContext
from app.execution.kill import GATE, KillSwitch
from app.execution.order import run_order
from app.intents import OrderIntent, canonical, content_hash
from app.job_safety.errors import RetryableError, TerminalError
from app.job_safety.faults import FaultPoint, Faults
from app.job_safety.keys import client_order_id
from app.job_safety.kill_key import DRILL_PREFIX
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.outcome import Venue
from app.job_safety.state import SENDABLE, IntentState
from app.journal import audit, intents, kill_latches, meta
from app.journal.intents import NewIntent
from app.journal.kill_latches import SUBJECT, Change, Latch

LASTS_MS: Final = 15_000
"""When a drill is over at the latest: longer than `recvWindow`, or its orders would expire before they are stopped."""

NEVER_MS: Final = 86_400_000
PRICE: Final = Decimal("0.01")
"""Nobody sells at this price: an order that got past a broken switch would buy nothing."""

BLOCKED_AT_ADMISSION: Final = f"snoozed: {GATE}:halt"
BLOCKED_AT_DISPATCH: Final = f"snoozed: {GATE}:halt:journal"
STOPPED_OTHERWISE: Final = ("snoozed: ", "EXPIRED: ", "held by ", "not tried: ")


class DrillRefusedError(TerminalError):
    """A drill cannot be held now; says why."""


class DrillUnderWayError(RetryableError):
    """Another drill is under way, or one that died has not been ended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """What became of the two orders: the words of the gate that stopped them, or where they got to."""

    at_dispatch: str
    at_admission: str

    @property
    def has_fired(self) -> bool:
        """Whether both were stopped, each by the gate that was to stop it."""
        return (self.at_dispatch, self.at_admission) == (BLOCKED_AT_DISPATCH, BLOCKED_AT_ADMISSION)

    @property
    def is_inconclusive(self) -> bool:
        """Whether something else stopped an order before the switch could, and none got past."""
        others = {self.at_dispatch, self.at_admission} - {BLOCKED_AT_DISPATCH, BLOCKED_AT_ADMISSION}
        return bool(others) and all(text.startswith(STOPPED_OTHERWISE) for text in others)


@dataclass(frozen=True, slots=True, kw_only=True)
class _AfterAdmission(Faults):
    """Does something right after an order was admitted; otherwise what the process' own plan says."""

    act: Callable[[], object]
    inner: Faults

    def may_strike(self, point: FaultPoint) -> bool:
        """Return whether the process' own plan does."""
        return self.inner.may_strike(point)

    def hit(self, point: FaultPoint) -> None:
        """Act at the one point."""
        if point is FaultPoint.AFTER_ADMISSION:
            self.act()
        self.inner.hit(point)


def hold(context: ExecutionContext, switch: KillSwitch, *, by: str, reason: str) -> Drilled:
    """Hold a drill and restore what was before; return what became of its orders.

    Everything that opens risk is held back for a moment while it lasts.

    Raises:
        DrillRefusedError: the mode sends nothing, the switch is on already, or no futures symbol may be traded.
        DrillUnderWayError: another drill is under way.
        AccountMovesError: the books of the account are not opened yet.
        ExchangeQueryError: the exchange does not answer.
        StoreUnavailableError: a store does not answer. What was changed is restored when the drill's time is over.
    """
    if context.is_dry_run or context.mode == "live":
        raise DrillRefusedError(
            f"mode {context.mode}: a drill needs a mode in which its order could be sent and harmless"
        )
    end_if_overdue(switch)
    opening.ensure_open(context, Venue.USDM)  # else the order would wait for that, and prove nothing
    latch = _begin(context, switch, by=by, reason=reason)
    drilled: Drilled | None = None
    try:
        at_dispatch = _drill_dispatch(context, switch, latch)
        drilled = Drilled(at_dispatch=at_dispatch, at_admission=_drill_admission(context, switch, latch))
    finally:
        _end(switch, latch, why=reason if drilled else "the drill was broken off", drilled=drilled)
    context.record.event(
        "kill_switch_drill", level="info" if drilled.has_fired else "critical", by=by, has_fired=drilled.has_fired,
        at_dispatch=drilled.at_dispatch, at_admission=drilled.at_admission,
    )  # fmt: skip
    return drilled


def end_if_overdue(switch: KillSwitch) -> bool:
    """Restore what a drill that died has left; return whether there was one.

    Raises:
        StoreUnavailableError: a store does not answer.
    """
    with switch.journal.read() as connection:
        latch = kill_latches.of(connection, KillSource.DRILL)
    if latch is None or switch.clock.now_ms() < (latch.until_ms or 0):
        return False
    _end(switch, latch, why="its process has died: ended when its time was over", drilled=None)
    switch.record.event("kill_switch_drill_ended", level="warning", by=latch.actor, since_ms=latch.since_ms)
    return True


def _begin(context: ExecutionContext, switch: KillSwitch, *, by: str, reason: str) -> Latch:
    if switch.key is None:
        raise DrillRefusedError("Redis is not reachable: the gate of admission cannot be tried")
    symbols = context.symbols.get(Venue.USDM, ())
    if not symbols:
        raise DrillRefusedError("universe.usdm names no symbol: a drill needs one")
    before = switch.key.read()
    now_ms = context.clock.now_ms()
    name = uuid4().hex[:12]
    orders = {gate: f"kill-switch-drill-{name}-{gate}" for gate in ("dispatch", "admission")}
    latch = Latch(
        source=KillSource.DRILL, state=KillState.RUN, actor=by, reason=reason, since_ms=now_ms,
        until_ms=now_ms + LASTS_MS, note={"key_value": f"{DRILL_PREFIX}{name}", "key_before": before, "orders": orders},
    )  # fmt: skip
    state: dict[str, KillState] = {"redis_key": context.read_kill_key(), **context.read_kill_here()}
    with context.journal.write() as connection:
        kill_latches.lock(connection)
        if (other := kill_latches.of(connection, KillSource.DRILL)) is not None:
            raise DrillUnderWayError(f"{other.actor} holds a drill; it is over in {(other.until_ms or 0) - now_ms} ms")
        state["journal"] = KillState(meta.load(connection).kill_state)
        if restricting := [f"{source} says {one}" for source, one in state.items() if one is not KillState.RUN]:
            raise DrillRefusedError(f"the switch is on already: {', '.join(restricting)}")
        kill_latches.note(connection, latch)
        rows = [_order(context, key, symbols[0], now_ms, latch.until_ms or 0) for key in orders.values()]
        intents.insert(connection, rows)
    return latch


def _drill_dispatch(context: ExecutionContext, switch: KillSwitch, latch: Latch) -> str:
    stop = _change(switch, latch, KillState.HALT)
    hooked = replace(context, faults=_AfterAdmission(plan={}, act=lambda: switch.change(stop), inner=context.faults))
    return run_order(hooked, latch.note["orders"]["dispatch"])


def _drill_admission(context: ExecutionContext, switch: KillSwitch, latch: Latch) -> str:
    # The first order is closed before the journal lets anything through again: a worker might take it up.
    with switch.journal.write() as connection:
        _close(connection, latch.note["orders"]["dispatch"], now_ms=switch.clock.now_ms())
        kill_latches.change(connection, _change(switch, latch, KillState.RUN), now_ms=switch.clock.now_ms())
        kill_latches.note(connection, latch)
    if switch.key is None or not switch.key.change(latch.note["key_before"], latch.note["key_value"]):
        return "not tried: somebody has set the Redis key meanwhile"
    return run_order(context, latch.note["orders"]["admission"])


def _end(switch: KillSwitch, latch: Latch, *, why: str, drilled: Drilled | None) -> None:
    """Restore. The key comes first: the note of what it said must outlive it."""
    if switch.key is not None:
        # Changed only if it still says what the drill wrote: what a person has set meanwhile stands.
        switch.key.change(latch.note["key_value"], latch.note["key_before"])
    now_ms = switch.clock.now_ms()
    with switch.journal.write() as connection:
        kill_latches.lock(connection)
        if kill_latches.of(connection, KillSource.DRILL) is None:
            return  # somebody else has ended it
        for key in latch.note["orders"].values():
            _close(connection, key, now_ms=now_ms)
        kill_latches.change(connection, _change(switch, latch, KillState.RUN), now_ms=now_ms)
        kill_latches.forget(connection, KillSource.DRILL)
        detail: dict[str, Any] = {"why": why, "config_hash": switch.config_hash}
        if drilled is not None:
            detail |= {
                "has_fired": drilled.has_fired,
                "at_dispatch": drilled.at_dispatch,
                "at_admission": drilled.at_admission,
            }
        audit.append(
            connection, now_ms=now_ms, actor=latch.actor, action="kill_switch_drill", subject=SUBJECT, detail=detail
        )


def _change(switch: KillSwitch, latch: Latch, state: KillState) -> Change:
    return Change(
        source=KillSource.DRILL, state=state, actor=latch.actor, reason=f"drill: {latch.reason}",
        config_hash=switch.config_hash, until_ms=latch.until_ms, note=latch.note,
    )  # fmt: skip


def _close(connection: Connection, key: str, *, now_ms: int) -> None:
    row = intents.load(connection, key, lock=True)
    if row.state in SENDABLE:
        intents.move(connection, row, IntentState.EXPIRED, now_ms=now_ms, reason="drill", booked_at_ms=now_ms)


def _order(context: ExecutionContext, key: str, symbol: str, now_ms: int, until_ms: int) -> NewIntent:
    """Return an order that no worker is given: the drill runs it itself, and it expires with the drill."""
    intent = OrderIntent(
        key=key, symbol=symbol, side="BUY", order_type="LIMIT", quantity=Decimal("0.001"), price=PRICE,
        time_in_force="IOC", strategy="kill-switch-drill",
    )  # fmt: skip
    content = canonical(intent)
    return NewIntent(
        key=key, type="order", queue="orders", content=content, content_hash=content_hash(content), opens_risk=True,
        created_at_ms=now_ms, run_at_ms=now_ms + NEVER_MS, venue=intent.venue, symbol=symbol,
        client_order_id=client_order_id(account=context.account, mode=context.mode, key=key), valid_until_ms=until_ms,
    )  # fmt: skip
