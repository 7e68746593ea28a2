"""Intents on their way in: journaled before they are delivered, once per key, whoever else enqueues them too."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Connection, NullPool, create_engine, func, select, text, update

from app.cli.waiting import look, wait_until_settled
from app.clock import Clock, SystemClock
from app.delivery import Delivery, Parcel
from app.intents import Intent, IntentError, parse_intent
from app.job_safety.errors import IntentNotFoundError, StoreUnavailableError
from app.journal import intents as journaled
from app.journal import migrate, schema
from app.journal.engine import Journal
from app.producer import CONFLICT, MAX_BATCH, NOT_DELIVERED, Producer, Status, Terms, submit
from app.wiring import connect_redis
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer, free_port

ROOT = Path(__file__).parents[2]
_T = schema.intents
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def order(key: str, quantity: str = "1", **fields: object) -> Intent:
    base = {"type": "order", "key": key, "symbol": "BTCUSDT", "side": "BUY", "quantity": quantity}
    return parse_intent({**base, **fields})


def cancel(key: str, order_key: str) -> Intent:
    return parse_intent({"type": "cancel", "key": key, "order_key": order_key})


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect_redis(redis_url, timeout_s=1) as client:
        yield client


def producer_of(journal: Journal, delivery: Delivery, clock: Clock | None = None) -> Producer:
    return Producer(journal, delivery, clock or SystemClock(), account="main", mode="paper", default_valid_for_s=30)


@pytest.fixture
def producer(journal: Journal, redis: Redis) -> tuple[Producer, Delivery]:
    delivery = Delivery(redis, account="main", mode="paper", installation="the-test")
    return producer_of(journal, delivery), delivery


def rows(journal: Journal) -> dict[str, dict[str, object]]:
    with journal.read() as connection:
        return {row["key"]: dict(row) for row in connection.execute(select(_T)).mappings()}


def test_an_intent_is_journaled_and_delivered_to_its_queue(
    producer: tuple[Producer, Delivery], journal: Journal
) -> None:
    entry, delivery = producer
    answers = entry.submit_many([order("open"), order("close", reduce_only=True), cancel("stop", "open")])
    assert [(a.key, a.status, a.delivered, a.error) for a in answers] == [
        ("open", Status.ACCEPTED, True, None),
        ("close", Status.ACCEPTED, True, None),
        ("stop", Status.ACCEPTED, True, None),
    ]
    assert {key: row["state"] for key, row in rows(journal).items()} == dict.fromkeys(
        ["open", "close", "stop"], "RECEIVED"
    )
    assert (delivery.depth("orders"), delivery.depth("urgent")) == (1, 2)


def test_the_same_again_is_a_duplicate_and_other_content_changes_nothing(
    producer: tuple[Producer, Delivery], journal: Journal
) -> None:
    entry, delivery = producer
    entry.submit(order("a", "1.0"))
    before = rows(journal)
    same, other = entry.submit_many([order("a", "1"), order("a", "2")])
    assert (same.status, same.error) == (Status.DUPLICATE, None)
    assert (other.status, other.error) == (Status.CONFLICT, CONFLICT)
    assert rows(journal) == before
    assert delivery.depth("orders") == 1


def test_within_one_batch_the_first_of_a_key_wins(producer: tuple[Producer, Delivery], journal: Journal) -> None:
    answers = producer[0].submit_many([order("b"), order("a", "1"), order("a", "2"), order("a", "1")])
    assert [answer.status.value for answer in answers] == ["accepted", "accepted", "conflict", "duplicate"]
    assert json.loads(str(rows(journal)["a"]["content"]))["quantity"] == "1"


def test_a_duplicate_whose_delivery_was_lost_is_delivered_again(
    producer: tuple[Producer, Delivery], redis_server: RedisServer
) -> None:
    entry, delivery = producer
    entry.submit(order("a"))
    with redis_server.client() as client:
        client.flushall()
    assert entry.submit(order("a")).status is Status.DUPLICATE
    assert delivery.depth("orders") == 1


def test_a_finished_duplicate_is_not_delivered_again(
    producer: tuple[Producer, Delivery], journal: Journal, redis_server: RedisServer
) -> None:
    entry, delivery = producer
    entry.submit(order("a"))
    with journal.write() as connection:
        connection.execute(update(_T).values(state="FILLED"))
    with redis_server.client() as client:
        client.flushall()
    assert entry.submit(order("a")).status is Status.DUPLICATE
    assert delivery.depth("orders") == 0


def test_a_cancel_needs_an_order_that_is_known_or_comes_with_it(
    producer: tuple[Producer, Delivery], journal: Journal
) -> None:
    entry, _ = producer
    assert entry.submit_many([cancel("c-1", "a"), order("b")])[0].status is Status.INVALID
    with pytest.raises(IntentError) as caught:
        entry.submit(cancel("c-2", "a"))
    assert (caught.value.field, caught.value.problem) == ("order_key", "names no order that the journal knows")
    with pytest.raises(IntentError, match="of type cancel"):
        entry.submit(cancel("c-3", "c-3"))
    assert set(rows(journal)) == {"b"}
    assert [a.status for a in entry.submit_many([order("a"), cancel("c-4", "a")])] == [Status.ACCEPTED] * 2
    assert entry.submit(cancel("c-5", "b")).status is Status.ACCEPTED


def test_redis_down_after_journaling_loses_nothing(
    producer: tuple[Producer, Delivery], journal: Journal, redis_server: RedisServer
) -> None:
    entry, delivery = producer
    redis_server.kill()
    answer = entry.submit(order("a"))
    assert (answer.status, answer.delivered, answer.error) == (Status.ACCEPTED, False, NOT_DELIVERED)
    assert rows(journal)["a"]["state"] == "RECEIVED"
    redis_server.start()
    again = entry.submit(order("a"))
    assert (again.status, again.delivered, again.error) == (Status.DUPLICATE, True, None)
    assert delivery.depth("orders") == 1


def test_a_redis_that_hangs_is_let_alone_for_as_long_as_it_has_hung(journal: Journal, redis: Redis) -> None:
    clock = Hanging.clock = StillClock()
    delivery = Hanging(redis, account="main", mode="paper", installation="the-test")
    entry = producer_of(journal, delivery, clock)
    answers = entry.submit_many([order(f"k-{number}") for number in range(3 * MAX_BATCH)])
    assert {(answer.status, answer.delivered) for answer in answers} == {(Status.ACCEPTED, False)}
    assert len(rows(journal)) == 3 * MAX_BATCH
    assert delivery.tries == 1
    clock.seconds += 5
    entry.submit(order("later"))
    assert delivery.tries == 2


class StillClock(SystemClock):
    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class Hanging(Delivery):
    """What `Delivery` does to a Redis that takes five seconds to time out, without the five seconds."""

    clock: StillClock
    tries = 0

    def deliver(self, parcels: Sequence[Parcel], *, force: bool = False) -> int:
        self.tries += 1
        self.clock.seconds += 5
        raise StoreUnavailableError("redis: timed out")


class Slow(Delivery):
    """Hands over only when `is_time` says so."""

    def __init__(self, redis: Redis, is_time: Callable[[], bool]) -> None:
        super().__init__(redis, account="main", mode="paper", installation="the-test")
        self.is_time = is_time

    def deliver(self, parcels: Sequence[Parcel], *, force: bool = False) -> int:
        deadline_s = time.monotonic() + 30
        while not self.is_time():
            assert time.monotonic() < deadline_s, "waited in vain"
            time.sleep(0.005)
        return super().deliver(parcels, force=force)


def test_next_batch_is_journaled_while_redis_takes_one(journal: Journal, redis: Redis) -> None:
    delivery = Slow(redis, lambda: len(rows(journal)) in {2 * MAX_BATCH, 2 * MAX_BATCH + 1})
    keys = [f"k-{number}" for number in range(2 * MAX_BATCH + 1)]
    answers = producer_of(journal, delivery).submit_many([order(key) for key in keys])
    assert [answer.key for answer in answers] == keys
    assert all(answer.status is Status.ACCEPTED and answer.delivered for answer in answers)
    waiting = [item.decode() for item in redis.lrange("rq:queue:orders", 0, -1)]
    places = {delivery.job_id(Parcel(key=key, type="order", queue="orders")): key for key in keys}
    assert [places[job] for job in waiting] == keys, "in the order in which they were asked for"


def test_batches_before_one_that_cannot_be_journaled_are_delivered(
    journal: Journal, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = Slow(redis, lambda: True)
    entry = producer_of(journal, delivery)
    write, calls = journal.write, []

    def away() -> AbstractContextManager[Connection]:
        calls.append(1)
        if len(calls) == 2:
            raise StoreUnavailableError("journal: away")
        return write()

    monkeypatch.setattr(journal, "write", away)
    with pytest.raises(StoreUnavailableError, match="away"):
        entry.submit_many([order(f"k-{number}") for number in range(3 * MAX_BATCH)])
    assert len(rows(journal)) == MAX_BATCH
    assert delivery.depth("orders") == MAX_BATCH


def test_rows_are_written_in_the_order_of_their_keys(tmp_path: Path, redis: Redis) -> None:
    """Two producers with the same keys in different orders would deadlock in PostgreSQL."""
    sqlite = Journal(f"sqlite:///{tmp_path / 'ordered.db'}")
    migrate.upgrade(sqlite)
    entry = producer_of(sqlite, Delivery(redis, account="main", mode="paper", installation="the-test"))
    answers = entry.submit_many([order(key) for key in "dacb"])
    assert [answer.key for answer in answers] == list("dacb")
    with sqlite.read() as connection:
        assert list(connection.execute(text("SELECT key FROM intents ORDER BY rowid")).scalars()) == list("abcd")
    sqlite.close()


def test_a_batch_that_postgres_chose_as_deadlock_victim_is_written_after_all(postgres_url: str, redis: Redis) -> None:
    """Whoever waits last closes the circle, and finds it: the producer, since nobody else looks for one."""
    postgres = Journal(postgres_url)
    migrate.upgrade(postgres)
    entry = producer_of(postgres, Delivery(redis, account="main", mode="paper", installation="the-test"))
    terms = Terms(account="main", mode="paper", default_valid_for_s=30)
    engine = create_engine(postgres_url, poolclass=NullPool)
    with (
        ThreadPoolExecutor(2) as threads,
        engine.connect() as first,
        engine.connect() as other,
        engine.connect() as watcher,
    ):
        at_first, at_other = first.begin(), other.begin()
        other.execute(text("SET LOCAL deadlock_timeout = '10min'"))
        journaled.insert(first, [terms.row(order("b"), 1)])
        journaled.insert(other, [terms.row(order("c"), 1)])
        answers = threads.submit(entry.submit_many, [order("a"), order("b"), order("c")])
        _until(watcher, _WAITING, 1)  # the producer, which has written a, for b
        crossing = threads.submit(journaled.insert, other, [terms.row(order("a"), 1)])
        _until(watcher, _WAITING, 2)  # the other for a
        at_first.rollback()  # and now the producer waits for c
        crossing.result(30)
        at_other.rollback()
        assert [answer.status for answer in answers.result(30)] == 3 * [Status.ACCEPTED]
        postgres.close()  # a session tells the server's statistics of its deadlock when it ends, if not before
        _until(watcher, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", 1)


def _until(watcher: Connection, query: str, wanted: int) -> None:
    deadline_s = time.monotonic() + 20
    while watcher.execute(text(query)).scalar_one() != wanted:
        watcher.rollback()
        assert time.monotonic() < deadline_s, query
    watcher.rollback()


def test_a_mapping_is_checked_at_the_door(producer: tuple[Producer, Delivery], journal: Journal) -> None:
    data = {"type": "order", "key": "a", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}
    assert submit(data, producer=producer[0]).status is Status.ACCEPTED
    with pytest.raises(IntentError, match="quantity"):
        submit({**data, "quantity": 1}, producer=producer[0])
    assert len(rows(journal)) == 1


def test_submit_opens_the_installation_of_the_environment(
    journal: Journal, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment(database_url, redis_url, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert submit(order("a")).status is Status.ACCEPTED
    assert set(rows(journal)) == {"a"}


def test_a_journal_that_is_down_accepts_nothing(redis: Redis) -> None:
    delivery = Delivery(redis, account="main", mode="paper", installation="the-test")
    down = Journal(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")
    entry = producer_of(down, delivery)
    with pytest.raises(StoreUnavailableError):
        entry.submit(order("a"))
    assert delivery.depth("orders") == 0


def test_four_processes_that_enqueue_the_same_file_take_each_intent_once(
    journal: Journal, database_url: str, redis_url: str, tmp_path: Path, nursery: Nursery
) -> None:
    lines = [order(f"k-{number}") for number in range(200)]
    texts = [intent.model_dump_json(exclude_none=True) for intent in lines]
    # Each in an order of its own: what two of them write at once, they write in the order of the keys.
    orders = [texts, texts[::-1], texts[100:] + texts[:100], texts[1::2] + texts[::2]]
    processes = []
    for number, content in enumerate(orders):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("\n".join(content))
        processes.append(
            nursery.start(
                "app.cli.main", ["enqueue", str(path)], environment=environment(database_url, redis_url, tmp_path),
                folder=tmp_path, name=f"enqueue-{number}", has_errors_apart=True,
            )
        )  # fmt: skip
    accepted: Counter[str] = Counter()
    for process in processes:
        assert process.wait(120) == 0, process.errors.read_text()
        answers = [json.loads(line) for line in process.words().splitlines()]
        assert len(answers) == 200
        assert {answer["status"] for answer in answers} <= {"accepted", "duplicate"}
        accepted.update(answer["key"] for answer in answers if answer["status"] == "accepted")
    assert accepted == Counter(f"k-{number}" for number in range(200))
    with journal.read() as connection:
        assert connection.execute(select(func.count()).select_from(_T)).scalar_one() == 200


def environment(database_url: str, redis_url: str, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FILLONCE_HOME": str(home / "home"),
        "FILLONCE_CONFIG": str(home),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "TRADING_MODE": "paper",
    }


# Waiting


class Steps(SystemClock):
    """A clock on which the world takes one step whenever somebody sleeps."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self.left = list(steps)

    def sleep(self, seconds: float) -> None:
        assert self.left, "it waits although nothing more will happen"
        self.left.pop(0)()


def move(journal: Journal, key: str, **values: object) -> Callable[[], None]:
    def step() -> None:
        with journal.write() as connection:
            assert connection.execute(update(_T).where(_T.c.key == key).values(**values)).rowcount == 1

    return step


def test_an_order_is_done_when_what_was_filled_is_booked(producer: tuple[Producer, Delivery], journal: Journal) -> None:
    producer[0].submit(order("a"))
    clock = Steps(
        move(journal, "a", state="DISPATCHED"),
        move(journal, "a", state="FILLED"),
        move(journal, "a", booked_at_ms=1),
    )
    standing = wait_until_settled(journal, ["a"], timeout_s=60, clock=clock)
    assert (standing.unfinished, standing.quarantined, clock.left) == (0, 0, [])


@pytest.mark.parametrize("state", ["REJECTED", "EXPIRED", "SIMULATED"])
def test_an_order_that_was_never_executed_has_nothing_to_book(
    producer: tuple[Producer, Delivery], journal: Journal, state: str
) -> None:
    producer[0].submit(order("a"))
    clock = Steps(move(journal, "a", state=state))
    assert wait_until_settled(journal, ["a"], timeout_s=60, clock=clock).is_settled


def test_waiting_without_keys_waits_for_what_arrives_meanwhile_too(
    producer: tuple[Producer, Delivery], journal: Journal
) -> None:
    entry, _ = producer
    entry.submit_many([order("a"), cancel("c", "a")])
    clock = Steps(
        lambda: (entry.submit(order("b")), move(journal, "a", state="REJECTED")())[1],
        move(journal, "c", state="DONE"),
        move(journal, "b", state="EXPIRED"),
    )
    assert wait_until_settled(journal, [], timeout_s=60, clock=clock).total == 3
    assert clock.left == []


def test_a_quarantined_intent_does_not_hold_up_the_others(
    producer: tuple[Producer, Delivery], journal: Journal
) -> None:
    producer[0].submit_many([order("a"), order("b")])
    clock = Steps(move(journal, "a", state="QUARANTINED"), move(journal, "b", state="REJECTED"))
    standing = wait_until_settled(journal, ["a", "b"], timeout_s=60, clock=clock)
    assert (standing.quarantined_keys, standing.unfinished, clock.left) == (("a",), 0, [])


def test_time_runs_out_with_the_names_of_what_is_left(producer: tuple[Producer, Delivery], journal: Journal) -> None:
    producer[0].submit_many([order("a"), order("b")])
    move(journal, "a", state="REJECTED")()
    standing = wait_until_settled(journal, ["a", "b"], timeout_s=0)
    assert (standing.unfinished, standing.unfinished_keys) == (1, ("b",))


def test_an_unknown_key_is_not_waited_for(journal: Journal) -> None:
    with pytest.raises(IntentNotFoundError, match="'nowhere'"):
        wait_until_settled(journal, ["nowhere"], timeout_s=60, clock=Steps())


def test_many_keys_are_looked_at_in_parts(producer: tuple[Producer, Delivery], journal: Journal) -> None:
    keys = [f"k-{number}" for number in range(1203)]
    producer[0].submit_many([order(key) for key in keys])
    assert look(journal, keys).unfinished == 1203
