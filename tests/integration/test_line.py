"""The connection over which a worker calls its scripts: each once, and no answer is taken for another's."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.delivery.line import Line
from app.wiring import connect_redis

COUNT = "return {ARGV[1], redis.call('INCR', KEYS[1])}"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    client.flushall()
    yield client
    client.close()


def test_script_is_called_with_what_it_is_given(redis: Redis) -> None:
    line, script = Line(redis), redis.register_script("return {KEYS[1], ARGV[1], ARGV[2], ARGV[3], #ARGV}")
    assert line.call(script, ["a key with spaces"], [b"\x00\xff", 7, "ü"]) == [
        b"a key with spaces", b"\x00\xff", b"7", "ü".encode(), 3,
    ]  # fmt: skip


def test_script_that_the_server_has_forgotten_is_called_once(redis: Redis) -> None:
    line, script = Line(redis), redis.register_script(COUNT)
    for number in (1, 2):
        redis.script_flush()
        assert line.call(script, ["count"], ["x"]) == [b"x", number]


def test_connection_that_the_server_has_closed_costs_nothing(redis: Redis, redis_url: str) -> None:
    other = connect_redis(redis_url)
    line, script = Line(redis), redis.register_script(COUNT)
    line.call(script, ["count"], ["x"])
    other.client_kill_filter(_type="normal", skipme=True)
    assert line.call(script, ["count"], ["y"]) == [b"y", 2]
    other.close()


def test_refusal_leaves_the_connection_as_it_was(redis: Redis) -> None:
    line, script = Line(redis), redis.register_script("return redis.call('INCR', KEYS[1])")
    redis.set("text", "no number")
    with pytest.raises(ResponseError, match="not an integer"):
        line.call(script, ["text"], [])
    assert line.call(script, ["count"], []) == 1


def test_answer_that_comes_too_late_is_nobody_elses(redis: Redis, redis_url: str) -> None:
    hasty = connect_redis(redis_url, timeout_s=0.2)
    line, script = Line(hasty), redis.register_script(COUNT)
    line.call(script, ["count"], ["first"])
    redis.client_pause(600, all=True)
    with pytest.raises(RedisTimeoutError):
        line.call(script, ["count"], ["late"])
    redis.client_unpause()
    asked = line.call(script, ["count"], ["next"])
    assert asked[0] == b"next"
    hasty.close()
