"""The connection over which a worker calls its scripts: each once, and no answer is taken for another's."""

import signal
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.exceptions import StopRequested

from app.delivery import line as line_module
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


def test_answer_to_a_call_that_a_signal_interrupted_is_nobody_elses(redis: Redis) -> None:
    """Its handler may raise anywhere: also when the question is out and nobody has begun to read."""
    line, script = Line(redis), redis.register_script(COUNT)
    line.call(script, ["count"], ["before"])
    connection = line._connection
    send = connection.send_packed_command

    def stop(*_: object) -> None:
        raise StopRequested

    def send_and_be_stopped(command: object) -> None:
        send(command)
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    redis.client_pause(500, all=True)
    connection.send_packed_command = send_and_be_stopped
    with pytest.raises(StopRequested):
        line.call(script, ["count"], ["interrupted"])
    connection.send_packed_command = send
    signal.signal(signal.SIGUSR1, before)
    assert line.call(script, ["count"], ["next"])[0] == b"next"


def test_connection_that_idled_for_long_is_replaced(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in between may have forgotten it without a word, and a worker would wait for that answer."""
    line, script = Line(redis), redis.register_script(COUNT)
    line.call(script, ["count"], ["x"])
    first = connections_of(redis)
    line.call(script, ["count"], ["x"])
    assert connections_of(redis) == first
    monkeypatch.setattr(line_module, "IDLE_LIMIT_S", 0.0)
    line.call(script, ["count"], ["x"])
    assert connections_of(redis) != first


def connections_of(redis: Redis) -> set[str]:
    return {client["id"] for client in redis.client_list()}
