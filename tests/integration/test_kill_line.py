"""The kill switch's key, read by every order over a connection of its own: never an old answer, never a guess."""

import os
import signal
from collections.abc import Iterator

import pytest
from redis import Redis

from app.job_safety.kill_line import KillKeyLine
from app.job_safety.kill_switch import KillState as K
from app.wiring import connect_redis
from tests.support.redis_server import RedisServer

KEY = "kill"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url, timeout_s=0.3)
    yield client
    client.close()


def test_each_reading_is_of_now(redis: Redis) -> None:
    line = KillKeyLine(redis, KEY)
    assert [line.read() for _ in range(3)] == [K.RUN] * 3
    redis.set(KEY, "true")
    assert [line.read() for _ in range(3)] == [K.HALT] * 3
    redis.set(KEY, "reduce_only")
    assert line.read() is K.REDUCE_ONLY
    redis.delete(KEY)
    assert line.read() is K.RUN


def test_key_of_another_type_stops_what_opens_risk_for_as_long_as_it_is_one(redis: Redis) -> None:
    line = KillKeyLine(redis, KEY)
    assert line.read() is K.RUN
    redis.rpush(KEY, "true")
    assert [line.read() for _ in range(3)] == [K.REDUCE_ONLY] * 3
    redis.delete(KEY)
    assert line.read() is K.RUN


def test_connection_that_the_server_has_closed_is_replaced_before_it_is_asked(redis: Redis) -> None:
    line = KillKeyLine(redis, KEY)
    assert [line.read(), line.read()] == [K.RUN, K.RUN]
    redis.set(KEY, "true")
    redis.client_kill_filter(_type="normal", skipme=True)
    assert line.read() is K.HALT


def test_answer_that_comes_after_its_time_is_not_read_as_one_to_a_later_question(
    redis_server: RedisServer, redis: Redis
) -> None:
    line = KillKeyLine(redis, KEY)
    assert [line.read(), line.read()] == [K.RUN, K.RUN]
    redis_server.pause()
    try:
        assert line.read() is K.REDUCE_ONLY
    finally:
        redis_server.resume()
    redis.set(KEY, "true")
    assert [line.read() for _ in range(3)] == [K.HALT] * 3


def test_answer_to_a_question_that_a_signal_interrupted_is_not_read_as_one_to_a_later(
    redis_server: RedisServer, redis: Redis
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    line = KillKeyLine(redis, KEY)
    assert [line.read(), line.read()] == [K.RUN, K.RUN]
    before = signal.signal(signal.SIGALRM, interrupt)
    redis_server.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            line.read()
    finally:
        redis_server.resume()
        signal.signal(signal.SIGALRM, before)
    redis.set(KEY, "true")
    assert [line.read() for _ in range(3)] == [K.HALT] * 3


def test_redis_that_is_not_there_stops_what_opens_risk_until_it_is_back(
    redis_server: RedisServer, redis: Redis
) -> None:
    line = KillKeyLine(redis, KEY)
    assert [line.read(), line.read()] == [K.RUN, K.RUN]
    redis_server.kill()
    assert [line.read(), line.read()] == [K.REDUCE_ONLY] * 2
    redis_server.restart()
    assert [line.read(), line.read()] == [K.RUN, K.RUN]


def test_fork_does_not_read_over_its_parents_connection(redis: Redis) -> None:
    line = KillKeyLine(redis, KEY)
    assert [line.read(), line.read()] == [K.RUN, K.RUN]
    (kept,) = line._kept
    pid = os.fork()
    if pid == 0:
        try:
            is_good = line.read() is K.RUN and kept not in line._kept
        except BaseException:  # noqa: BLE001 - the child must end here
            is_good = False
        os._exit(0 if is_good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    redis.set(KEY, "true")
    assert line.read() is K.HALT
    assert kept in line._kept
