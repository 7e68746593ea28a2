"""How we ask Redis: once, and no answer is taken for another's."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.exceptions import StopRequested

from app import once_redis
from app.wiring import connect_redis

COUNT = "return {ARGV[1], redis.call('INCR', KEYS[1])}"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    client.flushall()
    yield client
    client.close()


def test_script_is_called_with_what_it_is_given(redis: Redis) -> None:
    script = redis.register_script("return {KEYS[1], ARGV[1], ARGV[2], ARGV[3], #ARGV}")
    assert script(keys=["a key with spaces"], args=[b"\x00\xff", 7, "ü"]) == [
        b"a key with spaces", b"\x00\xff", b"7", "ü".encode(), 3,
    ]  # fmt: skip


def test_script_that_the_server_has_forgotten_is_called_once(redis: Redis) -> None:
    script = redis.register_script(COUNT)
    for number in (1, 2):
        redis.script_flush()
        assert script(keys=["count"], args=["x"]) == [b"x", number]


def test_connection_that_the_server_has_closed_costs_nothing(redis: Redis, redis_url: str) -> None:
    other = connect_redis(redis_url)
    script = redis.register_script(COUNT)
    script(keys=["count"], args=["x"])
    other.client_kill_filter(_type="normal", skipme=True)
    assert script(keys=["count"], args=["y"]) == [b"y", 2]
    other.close()


def test_refusal_leaves_the_connection_as_it_was(redis: Redis) -> None:
    script = redis.register_script("return redis.call('INCR', KEYS[1])")
    redis.set("text", "no number")
    with pytest.raises(ResponseError, match="not an integer"):
        script(keys=["text"], args=[])
    assert script(keys=["count"], args=[]) == 1


def test_answer_that_comes_too_late_is_nobody_elses(redis: Redis, redis_url: str) -> None:
    hasty = connect_redis(redis_url, timeout_s=0.2)
    script = hasty.register_script(COUNT)
    script(keys=["count"], args=["first"])
    redis.client_pause(600, all=True)
    with pytest.raises(RedisTimeoutError):
        script(keys=["count"], args=["late"])
    redis.client_unpause()
    asked = script(keys=["count"], args=["next"])
    assert asked[0] == b"next"
    hasty.close()


def test_answer_to_a_call_that_a_signal_interrupted_is_nobody_elses(redis: Redis) -> None:
    """Its handler may raise anywhere: also when the question is out and nobody has begun to read."""
    script = redis.register_script(COUNT)
    script(keys=["count"], args=["before"])
    connection = redis._kept[0].connection
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
        script(keys=["count"], args=["interrupted"])
    connection.send_packed_command = send
    signal.signal(signal.SIGUSR1, before)
    assert script(keys=["count"], args=["next"])[0] == b"next"


def test_connection_that_idled_for_long_is_replaced(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in between may have forgotten it without a word, and a worker would wait for that answer."""
    script = redis.register_script(COUNT)
    script(keys=["count"], args=["x"])
    first = connections_of(redis)
    script(keys=["count"], args=["x"])
    assert connections_of(redis) == first
    monkeypatch.setattr(once_redis, "IDLE_LIMIT_S", 0.0)
    script(keys=["count"], args=["x"])
    assert connections_of(redis) != first


def test_connection_to_a_server_that_is_no_longer_the_master_is_replaced(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of a Sentinel disowns it as soon as it has heard of another."""
    script = redis.register_script(COUNT)
    script(keys=["count"], args=["x"])
    first = connections_of(redis)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(redis.connection_pool, "owns_connection", lambda _connection: False)
        script(keys=["count"], args=["x"])
    assert connections_of(redis) != first


def test_threads_that_ask_at_once_have_a_connection_each(redis: Redis) -> None:
    script = redis.register_script("return ARGV[1]")
    names = [f"{number}" for number in range(2 * once_redis.MOST_KEPT)]
    with ThreadPoolExecutor(len(names)) as pool:
        told = list(pool.map(lambda name: [script(args=[name]) for _ in range(50)], names))
    assert told == [[name.encode()] * 50 for name in names]


def connections_of(redis: Redis) -> set[str]:
    return {client["id"] for client in redis.client_list()}
