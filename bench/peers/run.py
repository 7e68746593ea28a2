"""Runs one contestant through the plan."""

import time
from typing import Final

from bench.peers.plan import PACE_S, QUIET_S, WAIT_S, Contestant, Plan, Row

TICK_S: Final = 0.01


def run(contestant: Contestant, plan: Plan, *, until_s: float) -> Row:
    """Feed it, kill its workers, wait (bounded, and never past `until_s` of the monotonic clock), count, stop it."""
    try:
        contestant.start()
        started_s = time.monotonic()
        for number in range(1, plan.orders + 1):
            contestant.submit(number)
            _tend(contestant, started_s + number * PACE_S)
        _settle(contestant, plan, until_s)
        return contestant.measure(round(time.monotonic() - started_s))
    finally:
        contestant.stop()


def _settle(contestant: Contestant, plan: Plan, until_s: float) -> None:
    """Wait until all is finished, or nothing has moved for long enough."""
    seen = (-1, -1)
    give_up_s = 0.0
    while (now_s := time.monotonic()) < until_s:
        killed, finished = contestant.killed_count(), contestant.finished_count()
        if finished == plan.orders and killed == plan.kills:
            return
        if killed != seen[0]:
            give_up_s = now_s + WAIT_S
        if finished != seen[1]:
            give_up_s = max(give_up_s, now_s + QUIET_S)
        if now_s > give_up_s:
            return
        seen = (killed, finished)
        _tend(contestant, now_s + 20 * TICK_S)


def _tend(contestant: Contestant, until_s: float) -> None:
    while True:
        contestant.tend()
        if time.monotonic() >= until_s:
            return
        time.sleep(TICK_S)
