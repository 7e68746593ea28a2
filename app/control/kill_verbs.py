"""What a person can do with the kill switch, and the words that say what it did: the same wherever it is asked from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.composition import kill_file
from app.control.kill import Control
from app.control.kill_release import refusals
from app.execution import kill_settling
from app.execution.kill_settling import Flight, Landing
from app.execution.kill_status import KillStatus
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_switch import KillSource, KillState, parse

SHOWN: Final = 5
WORDS: Final = {
    KillState.RUN: "everything may leave",
    KillState.REDUCE_ONLY: "reduce-only and protective orders and cancels leave, nothing else",
    KillState.CANCEL_ONLY: "cancels leave, nothing else",
    KillState.HALT: "nothing leaves",
}
_HOW: Final = {
    KillSource.OPERATOR: "`fillonce kill-switch off --reason … --by …`",
    KillSource.REDIS_KEY: "`redis-cli SET KEY false`, or `fillonce kill-switch off --source redis_key …`",
    KillSource.FILE: "remove the file, then `fillonce kill-switch off --source file …`",
    KillSource.ENVIRONMENT: "unset FILLONCE_KILL_SWITCH and start anew, then `kill-switch off --source environment …`",
    KillSource.SYSTEM: "it ends by itself once no order of ours is unexplained, or `kill-switch off --source system …`",
    KillSource.DRILL: "it ends by itself",
}

Tell = Callable[[str], None]
"""Takes one line for a person, at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What throwing the switch has come to: what was on the wire then, and how that stands."""

    flights: Sequence[Flight]
    landing: Landing


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a wish to release has come to. `refusals` are the reasons why nothing was released."""

    status: KillStatus
    refusals: Sequence[str] = ()

    @property
    def is_off(self) -> bool:
        """Whether everything may leave now."""
        return not self.refusals and self.status.state is KillState.RUN


def throw(one: Control, state: KillState, *, by: str, reason: str, timeout_s: float, tell: Tell) -> Stopped:
    """Hold the switch at `state`, and wait at most `timeout_s` until what was on the wire has settled.

    Raises:
        StoreUnavailableError: the journal does not answer; what stops all the same was told.
    """
    try:
        thrown = one.throw(state, by=by.strip(), reason=reason.strip())
    except StoreUnavailableError:
        tell(_without_journal(one, state))
        raise
    tell_redis(one, tell)
    tell(f"{state.value} {'since now' if thrown.changed else 'already'}: {WORDS[state]}")
    landing = kill_settling.wait(one.journal, one.clock, thrown.flights, timeout_s=timeout_s)
    tell(f"{len(thrown.flights)} requests were on the wire; {landing.settled} have settled")
    if landing.in_flight:
        flying = ", ".join(landing.in_flight[:SHOWN])
        tell(f"time ran out after {timeout_s:g} s: {len(landing.in_flight)} not settled: {flying}")
    if landing.in_doubt:
        tell(f"{len(landing.in_doubt)} in doubt, under reconcile: {', '.join(landing.in_doubt[:SHOWN])}")
    return Stopped(flights=thrown.flights, landing=landing)


def release(one: Control, sources: Sequence[KillSource], *, by: str, reason: str, tell: Tell) -> Released:
    """Release the latches of `sources` after a clean reconcile, and say who holds the switch then.

    Raises:
        ExchangeQueryError: the exchange did not tell which orders of ours are open.
        StoreUnavailableError: a store does not answer.
    """
    before = one.status()
    if not before.holders():
        tell("the switch is off already")
        return Released(status=before)
    if any(name in before.holders() for name in sources):
        if refused := refusals(one, sources):
            for line in refused:
                tell(f"not released: {line}")
            return Released(status=before, refusals=refused)
        one.release(sources, by=by.strip(), reason=reason.strip())
        tell(f"released: {', '.join(name.value for name in sources)}")
    after = one.status()
    tell(f"{after.state.value}: {WORDS[after.state]}")
    for holder in after.holders():
        how = _HOW[holder].replace("KEY", one.settings.guard.kill_switch_key)
        tell(f"{after.words(holder)}; to release it: {how}")
    return Released(status=after)


def tell_redis(one: Control, tell: Tell) -> None:
    """Say so if Redis could not be reached."""
    if one.redis_error:
        tell(f"Redis is not reachable ({one.redis_error}): the journal alone holds the switch")


def _without_journal(one: Control, state: KillState) -> str:
    """Return what stops while the journal does not answer."""
    value, is_readable = one.read_key()
    if is_readable and parse(value).rank >= state.rank:
        return f"the journal does not answer; the Redis key says {value} and stops what is new; say it again later"
    return (
        "NEITHER JOURNAL NOR REDIS ANSWERS: nothing was written down. Without the journal nothing is dispatched, and "
        f"`touch {kill_file(one.settings)}` stops every worker of that machine for as long as the file is there"
    )
