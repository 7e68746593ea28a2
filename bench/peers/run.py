"""Runs one contestant through the plan."""

import time
from typing import Final

from bench.peers.plan import PACE_S, TAIL_S, WAIT_S, Contestant, Plan, Row

TICK_S: Final = 0.01


def run(contestant: Contestant, plan: Plan, *, until_s: float) -> Row:
    """Feed it, kill its workers, wait (bounded, and never past `until_s` of the monotonic clock), count, stop it."""
    try:
        contestant.start()
        started_s = time.monotonic()
        last_kill_s = started_s
        for number in range(1, plan.orders + 1):
            contestant.submit(number)
            if number in plan.kill_at:
                contestant.kill_next()
                last_kill_s = time.monotonic()
            _tend(contestant, started_s + number * PACE_S)
        deadline_s = min(max(last_kill_s + WAIT_S, time.monotonic() + TAIL_S), until_s)
        while not contestant.is_settled() and time.monotonic() < deadline_s:
            _tend(contestant, time.monotonic() + 20 * TICK_S)
        return contestant.measure(round(time.monotonic() - started_s))
    finally:
        contestant.stop()


def _tend(contestant: Contestant, until_s: float) -> None:
    while True:
        contestant.tend()
        if time.monotonic() >= until_s:
            return
        time.sleep(TICK_S)
