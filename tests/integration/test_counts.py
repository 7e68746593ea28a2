"""What processes count reaches Redis once, beside the work: through forks, kill -9, lost answers, and Redis away."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from app.clock import SystemClock
from app.observability import counted
from app.observability.buffer import EVENTS, MINUTE, SERIES, CountBuffer, CountNames, series
from app.observability.counted import Counted
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.wiring import connect_redis
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer

NAMES = CountNames(mode="paper", account="main")
CLOCK = SystemClock()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url, timeout_s=1)
    yield client
    client.close()


def recorder(redis: Redis) -> Recorder:
    return Recorder(make_logger(owner="test"), redis, CLOCK, mode=NAMES.mode, account=NAMES.account)


def buffer(redis: Redis, told: list[str] | None = None) -> CountBuffer:
    return CountBuffer(redis, NAMES, now_ms=CLOCK.now_ms, told=(told if told is not None else []).append)


def read(redis: Redis) -> Counted:
    return counted.read(redis, NAMES, now_ms=CLOCK.now_ms(), window_minutes=60)


def settled(one: Recorder, **fields: Any) -> None:
    said = {
        "outcome": "Accepted", "job_type": "order_usdm", "type": "order", "venue": "usdm", "symbol": "BTCUSDT",
        "side": "BUY", "took_ms": 12.5, "age_ms": 80, "attempt": 1, "failure_class": None, **fields,
    }  # fmt: skip
    one.event("attempt_settled", level="debug", count=False, **said)


def until(look: Any) -> None:
    """Wait, within bounds, until `look` says yes."""
    done = threading.Event()
    for _ in range(600):
        if look():
            return
        done.wait(0.02)
    raise AssertionError("waited 12 s")


def test_what_is_recorded_comes_back_by_metric_and_labels(redis: Redis) -> None:
    one = recorder(redis)
    settled(one)
    settled(one, side="SELL", took_ms=4_000)
    one.event("snoozed", job_type="order_usdm", why="pause:429:too_many_requests")
    one.alarm("late_fill", key="k")
    one.close()
    found = read(redis)
    assert found.values["orders_placed_total"] == {("BTCUSDT", "BUY"): 1, ("BTCUSDT", "SELL"): 1}
    assert found.values["retry_blocks_total"] == {("order_usdm", "cooldown"): 1}
    assert found.values["gate_blocks_total"] == {("order_usdm", "pause"): 1}
    assert found.values["alarms_total"] == {("late_fill",): 1}
    assert found.recent["attempts_total"] == {("order_usdm", "Accepted"): 2}
    taken = found.histograms["dispatch_seconds"]["order_usdm", "Accepted"]
    assert dict(taken.buckets)["0.025"] == 1
    assert dict(taken.buckets)["5.0"] == dict(taken.buckets)["+Inf"] == 2
    assert taken.sum == pytest.approx(4.0125)


def test_thousand_events_cost_a_few_round_trips_and_none_of_them_waits(redis: Redis) -> None:
    def calls() -> int:
        return int(redis.info("stats")["total_commands_processed"])

    one = recorder(redis)
    settled(one)
    one.close()  # the script is loaded by now
    before = calls()
    two = recorder(redis)
    for _ in range(1000):
        settled(two)
    two.close()
    # Inside the script each field is a command too; what counts is that they do not grow with the events.
    assert calls() - before < 200
    assert sum(read(redis).values["attempts_total"].values()) == 1001


def test_counts_reach_redis_within_about_a_second_without_being_asked(redis: Redis) -> None:
    one = recorder(redis)
    settled(one)
    until(lambda: sum(read(redis).values.get("attempts_total", {}).values()) == 1)
    one.close()


def test_fork_counts_its_own_and_not_again_what_its_parent_has_counted(redis: Redis, redis_url: str) -> None:
    one = recorder(redis)
    settled(one)
    pid = os.fork()
    if pid == 0:
        try:
            settled(one, outcome="Refused")
            one.close()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    one.close()
    assert read(redis).values["attempts_total"] == {("order_usdm", "Accepted"): 1, ("order_usdm", "Refused"): 1}


def test_kill_9_loses_nothing_that_was_counted_more_than_a_moment_ago(redis: Redis) -> None:
    """The other half, that the last second is lost, is said in the docs; what must be right is in the journal."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        one = recorder(redis)
        for _ in range(25):
            settled(one)
        os.write(told, b"x")
        threading.Event().wait(60)
        os._exit(1)
    os.read(ready, 1)
    until(lambda: sum(read(redis).values.get("attempts_total", {}).values()) == 25)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read(redis).values["attempts_total"] == {("order_usdm", "Accepted"): 25}


def test_batch_whose_answer_was_lost_is_not_counted_twice(redis: Redis) -> None:
    one = buffer(redis)
    add = one._add
    sent: list[int] = []

    def lose_the_first_answer(**arguments: Any) -> Any:
        answer = add(**arguments)
        sent.append(answer)
        if len(sent) == 1:
            raise ConnectionResetError
        return answer

    def wrapped(**arguments: Any) -> Any:
        from redis.exceptions import ConnectionError as Lost

        try:
            return lose_the_first_answer(**arguments)
        except ConnectionResetError as error:
            raise Lost from error

    one._add = wrapped  # type: ignore[assignment]
    one._closed = True  # no thread: this test flushes by itself
    one.put([(SERIES, series("in_doubt_total", "order_usdm", "timeout"), 1)])
    assert one.flush() is False
    one.put([(SERIES, series("in_doubt_total", "order_usdm", "timeout"), 1)])
    assert one.flush() is True
    assert sent == [0, -1, 0]
    assert read(redis).values["in_doubt_total"] == {("order_usdm", "timeout"): 2}


def test_redis_that_is_away_loses_no_count_of_a_process_that_lives(redis: Redis, redis_server: RedisServer) -> None:
    told: list[str] = []
    one = buffer(redis, told)
    one._closed = True
    one.put([(EVENTS, "retry", 1)])
    redis_server.kill()
    assert one.flush() is False
    one.put([(EVENTS, "retry", 1)])
    assert one.flush() is False
    redis_server.start()
    assert one.flush() is True
    assert read(redis).values["fillonce_events_total"] == {("retry",): 2}
    assert told != []


def test_redis_that_hangs_holds_up_nobody_who_records(redis: Redis, redis_server: RedisServer) -> None:
    one = recorder(redis)
    settled(one)
    redis_server.pause()
    try:
        done = threading.Thread(target=lambda: [settled(one) for _ in range(500)])
        done.start()
        done.join(20)
        assert not done.is_alive()
    finally:
        redis_server.resume()
    one.close()
    assert sum(read(redis).values["attempts_total"].values()) == 501


def test_thirty_retries_at_one_clock_value_are_thirty(redis: Redis) -> None:
    """Counts, not members of a set named by their time: those collapse into one."""
    clock = FakeClock()
    one = CountBuffer(redis, NAMES, now_ms=clock.now_ms, told=print)
    one._closed = True
    field = series("retry_blocks_total", "order_usdm", "cooldown")
    for _ in range(30):
        one.put([(SERIES, field, 1), (MINUTE, field, 1)])
        one.flush()
    found = counted.read(redis, NAMES, now_ms=clock.now_ms(), window_minutes=60)
    assert found.recent["retry_blocks_total"] == {("order_usdm", "cooldown"): 30}


def test_window_forgets_what_is_older_and_the_total_does_not(redis: Redis) -> None:
    """A rate is over a real window; a lifetime counter called a rate is none."""
    clock = FakeClock()
    one = CountBuffer(redis, NAMES, now_ms=clock.now_ms, told=print)
    one._closed = True
    field = series("retry_blocks_total", "order_usdm", "cooldown")
    one.put([(SERIES, field, 1), (MINUTE, field, 1)])
    one.flush()
    later_ms = clock.now_ms() + 61 * 60_000
    found = counted.read(redis, NAMES, now_ms=later_ms, window_minutes=60)
    assert "retry_blocks_total" not in found.recent
    assert found.values["retry_blocks_total"] == {("order_usdm", "cooldown"): 1}


def test_hash_of_series_has_a_bound_whatever_is_counted(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.observability.buffer.MAX_FIELDS", 10)
    one = buffer(redis)
    one._closed = True
    for number in range(50):
        one.put([(SERIES, series("alarms_total", f"a{number}"), 1)])
    one.flush()
    assert redis.hlen(NAMES.series) == 10


def test_what_many_processes_have_counted_is_bounded_when_it_is_read(redis: Redis) -> None:
    one = buffer(redis)
    one._closed = True
    for number in range(150):
        one.put([(SERIES, series("alarms_total", f"a{number}"), 1)])
    one.flush()
    found = read(redis).values["alarms_total"]
    assert len(found) == 101
    assert found["other",] == 50


def test_field_that_nobody_of_ours_wrote_is_passed_over(redis: Redis) -> None:
    redis.hset(
        NAMES.series, mapping={"rubbish": "1", '["no_such_metric","x"]': "1", '["alarms_total"]': "1", "[]": "1"}
    )
    assert "alarms_total" not in read(redis).values
