"""The kill switch's key, read by every order: never an old answer, never a guess."""

import os
import signal
from collections.abc import Iterator
from typing import cast

import pytest

from app.job_safety.kill_switch import KillState as K
from app.job_safety.kill_switch import read_key
from app.once_redis import OnceRedis
from app.wiring import connect_redis
from tests.support.redis_server import RedisServer

KEY = "kill"


@pytest.fixture
def redis(redis_url: str) -> Iterator[OnceRedis]:
    client = cast("OnceRedis", connect_redis(redis_url, timeout_s=0.3))
    yield client
    client.close()


def test_each_reading_is_of_now(redis: OnceRedis) -> None:
    assert [read_key(redis, KEY) for _ in range(3)] == [K.RUN] * 3
    redis.set(KEY, "true")
    assert [read_key(redis, KEY) for _ in range(3)] == [K.HALT] * 3
    redis.set(KEY, "reduce_only")
    assert read_key(redis, KEY) is K.REDUCE_ONLY
    redis.delete(KEY)
    assert read_key(redis, KEY) is K.RUN


def test_key_of_another_type_stops_what_opens_risk_for_as_long_as_it_is_one(redis: OnceRedis) -> None:
    assert read_key(redis, KEY) is K.RUN
    redis.rpush(KEY, "true")
    assert [read_key(redis, KEY) for _ in range(3)] == [K.REDUCE_ONLY] * 3
    redis.delete(KEY)
    assert read_key(redis, KEY) is K.RUN


def test_connection_that_the_server_has_closed_is_replaced_before_it_is_asked(redis: OnceRedis) -> None:
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]
    redis.set(KEY, "true")
    redis.client_kill_filter(_type="normal", skipme=True)
    assert read_key(redis, KEY) is K.HALT


def test_answer_that_comes_after_its_time_is_not_read_as_one_to_a_later_question(
    redis_server: RedisServer, redis: OnceRedis
) -> None:
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]
    redis_server.pause()
    try:
        assert read_key(redis, KEY) is K.REDUCE_ONLY
    finally:
        redis_server.resume()
    redis.set(KEY, "true")
    assert [read_key(redis, KEY) for _ in range(3)] == [K.HALT] * 3


def test_answer_to_a_question_that_a_signal_interrupted_is_not_read_as_one_to_a_later(
    redis_server: RedisServer, redis: OnceRedis
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]
    before = signal.signal(signal.SIGALRM, interrupt)
    redis_server.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            read_key(redis, KEY)
    finally:
        redis_server.resume()
        signal.signal(signal.SIGALRM, before)
    redis.set(KEY, "true")
    assert [read_key(redis, KEY) for _ in range(3)] == [K.HALT] * 3


def test_redis_that_is_not_there_stops_what_opens_risk_until_it_is_back(
    redis_server: RedisServer, redis: OnceRedis
) -> None:
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]
    redis_server.kill()
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.REDUCE_ONLY] * 2
    redis_server.restart()
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]


def test_fork_does_not_read_over_its_parents_connection(redis: OnceRedis) -> None:
    assert [read_key(redis, KEY), read_key(redis, KEY)] == [K.RUN, K.RUN]
    ((kept, _),) = redis._kept
    pid = os.fork()
    if pid == 0:
        try:
            is_good = read_key(redis, KEY) is K.RUN and kept is not redis._kept[0].connection
        except BaseException:  # noqa: BLE001 - the child must end here
            is_good = False
        os._exit(0 if is_good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    redis.set(KEY, "true")
    assert read_key(redis, KEY) is K.HALT
    assert kept is redis._kept[0].connection
