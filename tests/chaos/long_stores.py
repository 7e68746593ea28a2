"""Stores that do not answer, refuse, or are full: what opens risk waits, and then happens once."""

import time

import pytest

from tests.chaos.databases import sqlite_locked
from tests.chaos.plans import Place
from tests.chaos.runner import Arena, arena
from tests.chaos.supervised import FILE_LIMIT
from tests.chaos.workload import market

pytestmark = pytest.mark.timeout(900)


def assert_all_placed_once(one: Arena) -> None:
    assert one.rest(timeout_s=60) == [], one.here._report()
    findings = one.result().findings
    assert not findings, str(findings)
    for key in one.wishes:
        assert one.here.row(key).state == "FILLED"


def test_sqlite_locked_by_a_stranger_for_ten_seconds_delays_orders_and_loses_none(place: Place) -> None:
    with arena(place.folder / "locked", redis=place.redis, nursery=place.nursery) as one:
        one.submit([market(f"before-{number}") for number in range(5)])
        one.start()
        started = time.monotonic()
        with sqlite_locked(place.folder / "locked" / "journal.db", 10):
            waited = time.monotonic()
        assert waited - started < 10
        one.submit([market("after")])
        assert time.monotonic() - waited >= 9, "the lock did not hold anybody up"
        assert_all_placed_once(one)


def test_worker_whose_disk_is_full_sends_nothing_and_others_finish_its_orders(place: Place) -> None:
    """The journal cannot be written, so nothing may leave: not the order, and not a half of it."""
    with arena(place.folder / "full", redis=place.redis, nursery=place.nursery) as one:
        one.submit([market(f"full-{number}") for number in range(5)])
        starved = one.nursery.start(
            "tests.chaos.supervised", ["orders", "--burst"], environment={**one.here.environment, FILE_LIMIT: "24576"},
            folder=one.here.folder, name="starved",
        )  # fmt: skip
        assert starved.wait(60) == 0, starved.tail()
        assert "StoreUnavailableError" in starved.words(), starved.tail()
        assert one.here.exchange.truth()["orders"] == []
        one.start()
        assert_all_placed_once(one)


@pytest.mark.parametrize("outage_s", [8])
def test_redis_that_hangs_delays_opens_and_lets_exits_through(place: Place, outage_s: int) -> None:
    with arena(place.folder / "hanging", redis=place.redis, nursery=place.nursery) as one:
        one.start()
        one.submit([market("entry")])
        one.here.wait_until_booked("entry")
        place.redis.pause()
        stopped = time.monotonic()
        try:
            one.submit([market("later", symbol="ETHUSDT")])
            one.submit([market("exit", side="SELL", reduce_only=True)])
            one.here.wait_for_state("exit", "FILLED", timeout_s=40)
            assert one.here.row("later").state == "RECEIVED"
            time.sleep(max(0.0, outage_s - (time.monotonic() - stopped)))
        finally:
            place.redis.resume()
        assert_all_placed_once(one)
