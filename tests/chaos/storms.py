"""A storm: a workload goes on while a seeded schedule of strikes breaks one thing after the other."""

import time
from itertools import islice
from random import Random

from tests.chaos.faults import KILLS, Planned, Strike
from tests.chaos.runner import Result
from tests.chaos.strikes import Strikes
from tests.chaos.workload import Workload

SUBMIT_EVERY_S = 0.12
PATIENCE_S = 40
"""For how long a strike that found nothing to strike is tried again."""


def run_storm(strikes: Strikes, planned: list[Planned], random: Random, *, rest_s: int = 90) -> Result:
    """Strike as planned under load, put everything right, wait for rest, and return what was found."""
    one, result = strikes.one, strikes.result
    wishes = iter(Workload(random))
    waiting = list(islice(wishes, 4))
    started = time.monotonic()
    next_wish = 0.0
    left = list(planned)
    while left or strikes.repairs:
        now = time.monotonic() - started
        strikes.repair()
        if left and now >= left[0].at_s:
            _strike(strikes, left, now)
        if now >= next_wish:
            next_wish = now + SUBMIT_EVERY_S
            waiting += islice(wishes, 1)
            # What could not be journaled was not promised: it is submitted again, as a producer would.
            waiting = [group for group in waiting if not one.submit(group)]
        one.end_pauses()
        time.sleep(0.02)
    strikes.calm()
    while waiting:
        waiting = [group for group in waiting if not one.submit(group)]
    one.rest(timeout_s=rest_s)
    kinds = {plan.strike for plan in planned}
    result.add(one.result(may_give_up=Strike.ANSWER_BADLY in kinds))
    result.kills += sum(result.struck[kind] for kind in kinds & KILLS)
    result.not_struck += [str(kind) for kind in sorted(kinds) if not result.struck[kind]]
    deaths = [f"kill -9 of {role}" for role in one.role_names()]
    if sum(plan.strike is Strike.KILL_CHILD for plan in planned) >= len(deaths):
        result.not_struck += [death for death in deaths if not result.struck[death]]
    return result


def _strike(strikes: Strikes, left: list[Planned], now_s: float) -> None:
    planned = left.pop(0)
    if not strikes.strike(planned.strike) and now_s < planned.at_s + PATIENCE_S:
        # There was nobody to strike, such as right after the supervisor's death: what comes next comes first.
        left.insert(min(1, len(left)), planned)
