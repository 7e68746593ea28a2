"""One round of a run: what is broken at which points, and how long it is waited for what must come of it."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.exchange.paper.faults import FaultAction
from app.job_safety.faults import FaultPoint
from app.job_safety.state import IntentState
from tests.chaos.faults import ORDER_PATH, Mode
from tests.chaos.runner import LEASE_S, POLL_S, Arena, Result, client_order_id_of
from tests.chaos.workload import MAY_EXPIRE, Wish, market


def matrix_round(
    one: Arena,
    chosen: Sequence[Mode],
    points: Sequence[FaultPoint],
    *,
    name: str,
    orders: int,
    venue: str = "usdm",
    timeout_s: int = 240,
) -> Result:
    """Kill a process at every point while the exchange answers in the chosen ways; wait until all is settled.

    The supervisor runs with a plan for every point. Each of the orders has one of the modes as the answer to its first
    request, in turn; when they are done, plain ones follow until every point has struck.
    """
    wishes: list[Wish] = []
    rules: list[dict[str, Any]] = []
    # First those that make everybody pause, so that they are sent while they are valid.
    turns = sorted(chosen, key=lambda mode: not mode.closes_the_venue)
    for number in range(orders):
        mode = turns[number % len(turns)]
        key = f"{name}-{number:02d}"
        # After a ban nobody sends until it is over: what may expire does so, and is never sent.
        wish = market(key, venue=venue, valid_for_s=25 if mode.closes_the_venue else 600)
        wishes.append(Wish(intent=wish.intent, ends=MAY_EXPIRE if mode.closes_the_venue else wish.ends))
        rules += mode.rules(client_order_id_of(one.here, key))
    before = set(one.wishes)
    one.here.exchange.faults(*rules)
    one.arm(points)
    assert one.submit(wishes)
    counts: Counter[str] = Counter()
    expected = [rule for mode in chosen for rule in mode.rule_names]
    # What lags does so for a while and not for ever.
    lag_s = max((mode.ms for mode in chosen if mode.action is FaultAction.READ_LAG), default=0) / 1000
    extra, all_struck_at = 0, 0.0
    started = time.monotonic()
    while time.monotonic() < started + timeout_s:
        one.end_pauses()
        now = time.monotonic()
        if not counts:
            seen = _struck_by_rule(one)
            all_struck_at = all_struck_at or (now if all(seen[rule] for rule in expected) else 0.0)
            if all_struck_at and now >= all_struck_at + lag_s:
                counts = seen
                one.here.exchange.faults()
        left = [row for row in one.unsettled() if row.key not in before]
        one.witness(left)
        is_quiet = not left
        if counts and is_quiet and one.struck(points) == set(points):
            break
        if is_quiet:
            extra += 1
            one.submit([market(f"{name}-more-{extra}", venue=venue)])
        time.sleep(POLL_S)
    counts = counts or _struck_by_rule(one)
    one.here.exchange.faults()
    stranded = one.rest(timeout_s=60)
    struck = one.struck(points)
    result = Result(kills=len(struck))
    result.not_struck += [f"{name}: kill at {point}" for point in points if point not in struck]
    result.not_struck += [f"{name}: answer {rule}" for rule in expected if not counts[rule]]
    result.struck.update({f"kill at {point}": 1 for point in struck})
    result.struck.update({f"answer {mode.name}": counts[mode.name] for mode in chosen})
    result.cases = {(point.value, mode.name) for point in struck for mode in chosen}
    result.findings.stranded += [f"{name}: {key}" for key in stranded]
    one.disarm()
    return result


MID_DISPATCH = (
    FaultPoint.AFTER_ADMISSION,
    FaultPoint.AFTER_DISPATCH_COMMIT,
    FaultPoint.AFTER_SEND,
    FaultPoint.IN_SETTLE_TRANSACTION,
)


def recovery_round(one: Arena, *, name: str, times: int, timeout_s: int = 30) -> Result:
    """Kill a worker in the middle of its only order, wait until the order goes on, and again; settle all at the end."""
    result = Result()
    for number in range(times):
        point = MID_DISPATCH[number % len(MID_DISPATCH)]
        key = f"{name}-{number:02d}"
        one.arm([point])
        one.submit([market(key)])
        deadline = time.monotonic() + timeout_s
        while not one.struck([point]) and time.monotonic() < deadline:
            time.sleep(0.005)
        if not one.struck([point]):
            result.not_struck.append(f"{name}: kill at {point}")
            continue
        one.deaths.markers.append(one.marker(point).stat().st_mtime_ns / 1_000_000)
        result.kills += 1
        result.struck[f"kill at {point}"] += 1
        while one.here.row(key).state in STANDING and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(PACE_S)
    result.findings.stranded += one.rest(timeout_s=timeout_s)
    return result


STANDING = {IntentState.RECEIVED, IntentState.DISPATCHED}
PACE_S = 0.4
"""The next one dies when the successor of the last is at work: deaths are measured one by one."""


def machine_round(one: Arena, *, name: str, times: int, timeout_s: int = 30) -> Result:
    """Let a whole machine die that has an order on the wire: nobody there notices, and others go on by the lease.

    The machine is the supervisor with its children; the arena's other processes are the other machine.
    """
    result = Result()
    for number in range(times):
        key = f"{name}-{number}"
        one.here.exchange.faults(
            {"name": "slow", "action": "delay_reply_ms", "ms": 4_000,
             "match": {"method": "POST", "path": ORDER_PATH,
                       "client_order_id": f"^{client_order_id_of(one.here, key)}$", "times": 1}}
        )  # fmt: skip
        one.start()
        one.submit([market(key)])
        one.here.until(lambda: one.here.exchange.struck() == [1], "the order to be on the wire", timeout_s=timeout_s)
        died_ms = time.time() * 1000
        orphans = one.kill_supervisor()
        result.kills += 1
        result.struck["kill -9 of a whole machine"] += bool(orphans)
        one.here.wait_for_state(key, *(set(IntentState) - STANDING), timeout_s=timeout_s)
        # Unless the sweep of orders, which comes by now and then, has found it first.
        result.lease_recovery_ms += [
            told.at_ms - died_ms
            for told in one.told()
            if told.name == "in_doubt" and told.fields.get("key") == key and told.fields.get("rule") == "owner_died"
        ]
    one.here.exchange.faults()
    one.start()
    result.findings.stranded += one.rest(timeout_s=60)
    return result


def cancel_round(one: Arena, *, name: str, times: int) -> Result:
    """Let the price come while a cancel is on its way to the engine: the order is filled, the cancel finds nothing."""
    result = Result()
    for number in range(times):
        key = f"{name}-{number}"
        one.here.exchange.price("BTCUSDT", "20000.00")
        one.submit([market(key, order_type="LIMIT", price="19000.00")])
        one.here.wait_for_state(key, "ACCEPTED")
        slow = {"action": "delay_before_ms", "ms": 500, "match": {"method": "DELETE", "times": 1}}
        one.here.exchange.faults(slow)
        cancel = Wish(
            intent={"type": "cancel", "key": f"{key}-cancel", "order_key": key}, ends=frozenset({IntentState.DONE})
        )
        one.submit([cancel])
        one.here.until(lambda: one.here.exchange.struck() == [1], "the cancel to be on its way")
        one.here.exchange.price("BTCUSDT", "18999.00")
        result.struck["fill between cancel and confirmation"] += 1
    one.here.exchange.faults()
    one.here.exchange.price("BTCUSDT", "20000.00")
    result.findings.stranded += one.rest(timeout_s=60)
    return result


def zombie_round(one: Arena, points: Sequence[FaultPoint], *, name: str, timeout_s: int = 240) -> Result:
    """Stop a worker at every point for three leases while others go on with its order, then let it go on too."""
    result = Result()
    one.arm(points)
    since: dict[int, float] = {}
    woken: dict[int, float] = {}
    count = 0
    deadline = time.monotonic() + timeout_s

    def wake() -> None:
        for pid in one.stopped():
            since.setdefault(pid, time.monotonic())
            if time.monotonic() >= since[pid] + 3 * LEASE_S:
                since.pop(pid)
                woken[pid] = time.time()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    while one.struck(points) != set(points) and time.monotonic() < deadline:
        wake()
        if len(one.unsettled()) < 4:
            count += 1
            one.submit([market(f"{name}-{count:02d}")])
        time.sleep(POLL_S)
    while one.stopped() and time.monotonic() < deadline:
        wake()
        time.sleep(POLL_S)
    result.findings.stranded += one.rest(timeout_s=60, beside=wake)
    struck = one.struck(points)
    result.not_struck += [f"{name}: SIGSTOP at {point}" for point in points if point not in struck]
    # Two threads of a process may both strike before it stands still: it is one to be woken.
    for point in struck:
        marker = one.marker(point)
        if woken.get(int(marker.read_text()), 0) < marker.stat().st_mtime:
            result.not_struck.append(f"{name}: nobody was woken who was stopped at {point}")
    result.struck.update({f"SIGSTOP at {point}": 1 for point in struck})
    one.disarm()
    return result


def _struck_by_rule(one: Arena) -> Counter[str]:
    counts: Counter[str] = Counter()
    for rule in one.here.exchange.control("GET", "faults")["rules"]:
        counts[rule["name"]] += rule["struck"]
    return counts
