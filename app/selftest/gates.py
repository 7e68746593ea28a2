"""The gates on an order's way: what closes each, and the words with which it stops an order.

To add one: write a function that closes it by what would close it in earnest, runs an order and returns what became of
it, and name it in `ON_THE_WAY`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from app.execution import drill
from app.execution.drill import DrillRefusedError, DrillUnderWayError
from app.execution.kill import KillSwitch
from app.job_safety import kill_switch
from app.job_safety.admission import Admission, Admitted, EffectKind
from app.job_safety.kill_switch import FILE_NAME, KillSource
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.job_safety.side_effect_guard import Told
from app.selftest.seal import PassedEveryGateError
from app.selftest.stage import OWNER, PASSED, UNREADABLE, Stage
from app.wiring import connect_redis

USDM: Final = Venue.USDM.value
HALTED: Final = "halted: "
PAUSE_MS: Final = 600_000
NOBODY: Final = "unix:///nonexistent/fillonce-selftest.sock"
"""Where no Redis listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate. It has fired if what `trip` returns begins with one of `stops_with`."""

    name: str
    where: str
    stops_with: tuple[str, ...]
    trip: Callable[[Stage], str]


def control(stage: Stage) -> str:
    """Run an order with every gate open: it must pass, or what stops the others proves nothing."""
    return stage.run(stage.order())


def _kill_switch(stage: Stage) -> str:
    """Hold the drill on the switch itself, both of its places."""
    switch = stage.real.kill
    if not isinstance(switch, KillSwitch):
        return "not tried: this process has no kill switch"
    try:
        drilled = drill.hold(stage.real, switch, by=OWNER, reason="self test")
    except PassedEveryGateError:
        return PASSED
    except (DrillRefusedError, DrillUnderWayError) as error:
        return f"not tried: {error}"
    words = f"{drilled.at_dispatch}; {drilled.at_admission}"
    return f"{HALTED}{words}" if drilled.has_fired else words


def _kill_file(stage: Stage) -> str:
    folder = stage.installation.settings.stores.home / "selftest"
    path = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        context = replace(stage.shadow, read_kill_here=lambda: {KillSource.FILE: kill_switch.read_file(path)})
        return stage.run(stage.order(), context=context)
    finally:
        path.unlink()


def _pause(stage: Stage) -> str:
    stage.shadow.pause.close(USDM, for_ms=PAUSE_MS, why="418:self test", whole_address=True)
    return stage.run(stage.order())


def _pause_orders(stage: Stage) -> str:
    stage.shadow.pause.close(USDM, for_ms=PAUSE_MS, why="429:self test", whole_address=False)
    return stage.run(stage.order())


def _breaker(stage: Stage) -> str:
    """Tell of outcomes that are not known, as a failing exchange leaves them, until the circuit is open."""
    context, policy = stage.shadow, stage.shadow.breakers.policy
    for number in range(policy.min_calls + policy.consecutive):
        answer = context.admission.ask("order", f"{OWNER}-{number}", kind=EffectKind.OPEN, venue=USDM)
        if not isinstance(answer, Admitted):
            break
        told = Told(venue=Venue.USDM, ticket=answer.ticket, member=f"{OWNER}-{number}", weight=policy.unknown_weight)
        context.guard.release("order", f"{OWNER}-{number}", answer.token, told)
    text = stage.run(stage.order())
    return text if text != PASSED or policy.mode.value == "enforce" else f"{PASSED}: breaker.mode is {policy.mode}"


def _rate(stage: Stage) -> str:
    """Publish a limit of one order, and use it up."""
    stage.shadow.rate.publish(Venue.USDM, [Limit(kind="orders", window_ms=86_400_000, most=1)])
    stage.run(stage.order())  # the one that there is room for
    text, mode = stage.run(stage.order()), stage.shadow.rate.policy.mode
    return text if text != PASSED or mode.value == "enforce" else f"{PASSED}: rate_limits.mode is {mode}"


def _guard(stage: Stage) -> str:
    """Have somebody else work on the order already."""
    key = stage.order()
    stage.shadow.admission.ask("order", key, kind=EffectKind.BOOK)
    return stage.run(key)


def _journal(stage: Stage) -> str:
    """Deliver an order that is finished."""
    key = stage.order()
    stage.close_order(key)
    return stage.run(key)


def _validity(stage: Stage) -> str:
    return stage.run(stage.order(valid_for_ms=1))


def _validity_at_dispatch(stage: Stage) -> str:
    key = stage.order()
    return stage.run(
        key, after_admission=lambda: stage.change(key, valid_until_ms=stage.shadow.clock.now_ms() - 60_000)
    )


def _canceled_at_dispatch(stage: Stage) -> str:
    key = stage.order()
    return stage.run(key, after_admission=lambda: stage.change(key, cancel_requested=True))


def _redis_lost(stage: Stage) -> str:
    settings = stage.installation.settings
    lost = connect_redis(NOBODY)
    admission = Admission(lost, stage.names, owner=OWNER, lease_ttl_ms=settings.guard.lease_ttl_ms)
    return stage.run(stage.order(), context=replace(stage.shadow, admission=admission))


ADMISSION: Final = "admission"
DISPATCH: Final = "dispatch transaction"
BEFORE: Final = "before admission"


def _waits(reason: str) -> tuple[str, str]:
    """Return how an order is stopped that waits, or that cannot wait so long."""
    return f"snoozed: {reason}", f"EXPIRED: {reason}"


ON_THE_WAY: Final[tuple[Gate, ...]] = (
    Gate(
        name="kill_switch", where=f"{ADMISSION}, {DISPATCH}", stops_with=(HALTED,), trip=_kill_switch
    ),
    Gate(name="kill_file", where=BEFORE, stops_with=_waits("kill_switch:halt:file"), trip=_kill_file),
    Gate(name="pause", where=ADMISSION, stops_with=_waits("pause:418"), trip=_pause),
    Gate(name="pause_orders", where=ADMISSION, stops_with=_waits("pause:429"), trip=_pause_orders),
    Gate(name="breaker", where=ADMISSION, stops_with=_waits("breaker:"), trip=_breaker),
    Gate(name="rate", where=ADMISSION, stops_with=_waits("rate:orders"), trip=_rate),
    Gate(name="guard", where=ADMISSION, stops_with=("held by ",), trip=_guard),
    Gate(name="redis_lost", where=ADMISSION, stops_with=(UNREADABLE,), trip=_redis_lost),
    Gate(name="journal", where=BEFORE, stops_with=("EXPIRED",), trip=_journal),
    Gate(name="validity", where=BEFORE, stops_with=("EXPIRED: validity ran out before it was sent",), trip=_validity),
    Gate(
        name="validity_at_dispatch", where=DISPATCH, stops_with=("EXPIRED: validity ran out",),
        trip=_validity_at_dispatch,
    ),
    Gate(
        name="canceled_at_dispatch", where=DISPATCH, stops_with=("EXPIRED: canceled before it was sent",),
        trip=_canceled_at_dispatch,
    ),
)  # fmt: skip
