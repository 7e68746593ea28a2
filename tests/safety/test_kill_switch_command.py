"""The kill switch in a person's hands: who may release what, what it waits for, and that nothing is half done."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import SystemClock
from app.exchange.models import PinnedOrder
from app.execution import conditions, drill
from app.execution.conditions import not_killed
from app.execution.flatten import plan
from app.execution.order import run_order
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.outcome import Accepted, Venue
from app.journal import alerts, followups, schema
from app.journal.followups import ALERT
from app.producer import Producer
from app.wiring import make_gateway
from tests.support.kill import KEY, WHO, audited, begin_cli, composed, kill_file, latched, latches, run_cli, standing
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

ROOT = Path(__file__).resolve().parents[2]
FAST = {"workers": ("orders", "urgent", "positions", "ledger", "pnl")}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def here(tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    """An installation without any process, on SQLite."""
    with installed(tmp_path, redis, nursery, f"sqlite:///{tmp_path / 'journal.db'}") as one:
        yield one


@pytest.fixture
def anywhere(database_url: str, tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    """The same on either database."""
    with installed(tmp_path, redis, nursery, database_url) as one:
        yield one


@contextlib.contextmanager
def installed(tmp_path: Path, redis: RedisServer, nursery: Nursery, url: str) -> Iterator[System]:
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(
            PaperProcess(
                tmp_path / "exchange", "--price", "BTCUSDT=20000", "--price", "ETHUSDT=1000", "--deposit",
                "futures:USDT:1000000",
            )
        )  # fmt: skip
        yield stack.enter_context(
            system(tmp_path / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery)
        )


def ended(here: System, *arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code and all that it wrote."""
    one = run_cli(here, *arguments)
    return one.wait(), one.words()


def status(here: System) -> dict[str, Any]:
    code, words = ended(here, "kill-switch", "status", "--json")
    assert code == 0, words
    found: dict[str, Any] = json.loads(next(line for line in words.splitlines() if line.startswith("{")))
    return found


def bought(here: System, key: str, quantity: str = "0.010", symbol: str = "BTCUSDT") -> None:
    """Buy, and book it."""
    here.order(key, quantity=quantity, symbol=symbol)
    for queue in FAST["workers"]:
        here.run("worker", queue, "--burst")
    here.wait_until_booked(key)


def net(here: System, symbol: str = "BTCUSDT") -> Decimal:
    found = here.exchange.truth()["positions"].get(symbol)
    return Decimal(found["amount"]) if found else Decimal(0)


def is_admitted(here: System) -> bool:
    """Let a worker run; return whether an order got past admission (where it is lost then)."""
    marker = here.folder / "admitted"
    here.run("worker", "orders", "--burst", faults=f"after_admission=raise@{marker}")
    return marker.exists()


# Who holds it, and who may release it


def test_each_state_is_set_shown_and_audited_with_who_and_why(anywhere: System) -> None:
    for verb, state in (("cancel-only", "CANCEL_ONLY"), ("on", "HALT"), ("reduce-only", "REDUCE_ONLY")):
        assert ended(anywhere, "kill-switch", verb, "--reason", f"for {verb}", "--by", "anna")[0] == 0
        found = status(anywhere)
        assert (found["state"], found["sources"]["operator"]["holds"]) == (state, state)
        assert (found["sources"]["operator"]["by"], found["sources"]["operator"]["reason"]) == ("anna", f"for {verb}")
        assert anywhere.installation.redis.get(KEY) == state.encode(), "old programs look at the key"
    assert ended(anywhere, "kill-switch", "off", *WHO)[0] == 0
    assert status(anywhere)["state"] == "RUN"
    assert anywhere.installation.redis.get(KEY) == b"false"
    assert audited(anywhere) == [
        ("anna", "operator", "RUN", "CANCEL_ONLY"),
        ("anna", "operator", "CANCEL_ONLY", "HALT"),
        ("anna", "operator", "HALT", "REDUCE_ONLY"),
        ("anna", "operator", "REDUCE_ONLY", "RUN"),
    ]
    code, words = ended(anywhere, "audit", "list", "--subject", "kill_switch", "--json")
    rows = [json.loads(line) for line in words.splitlines() if line.startswith("{")]
    assert code == 0
    assert [row["detail"]["why"] for row in rows] == ["for cancel-only", "for on", "for reduce-only", "test"]
    assert all(len(row["detail"]["config_hash"]) == 64 for row in rows)
    assert ended(anywhere, "audit", "verify")[0] == 0


@pytest.mark.parametrize("arguments", [("on", "--by", "a", "--reason", " "), ("off", "--reason", "r", "--by", "")])
def test_command_without_reason_or_name_is_refused_and_changes_nothing(
    here: System, arguments: tuple[str, ...]
) -> None:
    code, words = ended(here, "kill-switch", *arguments)
    assert code == 2
    assert "say why and who" in words
    assert latches(here) == {}


def test_flushed_redis_does_not_release_what_the_command_line_holds(here: System) -> None:
    here.start("reconciler")
    ended(here, "kill-switch", "on", *WHO)
    here.installation.redis.flushall()
    here.order("after-the-flush", valid_for_s=300)
    assert not is_admitted(here)
    assert here.row("after-the-flush").reason == "snoozed: kill_switch:halt:journal"
    assert latches(here) == {"operator": "HALT"}


def test_set_false_releases_the_redis_key_and_nothing_that_the_command_line_holds(anywhere: System) -> None:
    anywhere.start("reconciler")
    redis = anywhere.installation.redis
    ended(anywhere, "kill-switch", "reduce-only", *WHO)
    redis.set(KEY, "true")
    anywhere.until(lambda: latches(anywhere) == {"operator": "REDUCE_ONLY", "redis_key": "HALT"}, "both to be held")
    redis.set(KEY, "false")
    anywhere.until(lambda: latches(anywhere) == {"operator": "REDUCE_ONLY"}, "the key's latch to be released")
    assert status(anywhere)["state"] == "REDUCE_ONLY"
    assert [row[1:] for row in audited(anywhere)] == [
        ("operator", "RUN", "REDUCE_ONLY"),
        ("redis_key", "RUN", "HALT"),
        ("redis_key", "HALT", "RUN"),
    ]


def test_off_names_the_sources_that_still_hold_and_leaves_them(here: System) -> None:
    here.start("reconciler")
    here.installation.redis.set(KEY, "true")
    here.until(lambda: latches(here) == {"redis_key": "HALT"}, "the key to be mirrored")
    ended(here, "kill-switch", "on", *WHO)
    assert here.installation.redis.get(KEY) == b"true", "what a person has set stands"
    code, words = ended(here, "kill-switch", "off", *WHO)
    assert code == 1
    assert "released: operator" in words
    assert "redis_key holds HALT" in words
    assert f"redis-cli SET {KEY} false" in words
    assert latches(here) == {"redis_key": "HALT"}
    assert here.installation.redis.get(KEY) == b"true"
    code, words = ended(here, "kill-switch", "off", "--source", "redis_key", *WHO)
    assert (code, here.installation.redis.get(KEY)) == (0, b"false"), words
    assert latches(here) == {}


def test_laxer_word_of_a_person_is_written_over_and_comes_back(here: System) -> None:
    here.installation.redis.set(KEY, "reduce_only")
    assert ended(here, "kill-switch", "on", *WHO)[0] == 0
    assert here.installation.redis.get(KEY) == b"HALT"
    assert latches(here) == {"operator": "HALT", "redis_key": "REDUCE_ONLY"}
    code, _ = ended(here, "kill-switch", "off", *WHO)
    assert (code, here.installation.redis.get(KEY)) == (1, b"reduce_only")
    assert status(here)["state"] == "REDUCE_ONLY"


def test_key_is_latched_by_the_worker_that_meets_it_although_no_keeper_runs(here: System) -> None:
    here.installation.redis.set(KEY, "true")
    here.order("met", valid_for_s=300)
    here.run("worker", "orders", "--burst")
    assert latches(here) == {"redis_key": "HALT"}
    here.installation.redis.flushall()
    here.order("after-the-flush", valid_for_s=300)
    here.run("worker", "orders", "--burst")
    assert here.row("after-the-flush").reason == "snoozed: kill_switch:halt:journal"


def test_file_stops_and_its_removal_alone_releases_nothing(here: System) -> None:
    kill_file(here).parent.mkdir(exist_ok=True)
    kill_file(here).write_text("false")
    here.order("held", valid_for_s=300)
    assert not is_admitted(here)
    assert here.row("held").reason == "snoozed: kill_switch:halt:file"
    code, words = ended(here, "kill-switch", "off", "--source", "file", *WHO)
    assert code == 1
    assert f"remove {kill_file(here)}" in words
    kill_file(here).unlink()
    with composed(here) as (_, switch):
        assert switch.mirror() == []
    assert status(here)["state"] == "HALT"
    assert ended(here, "kill-switch", "off", "--source", "file", *WHO)[0] == 0
    assert status(here)["state"] == "RUN"


def test_environment_stops_the_process_that_has_it_and_is_remembered(here: System) -> None:
    here.order("held", valid_for_s=300)
    one = here.start("worker", "orders", "--burst", FILLONCE_KILL_SWITCH="reduce_only")
    assert one.wait() == 0
    assert here.row("held").reason == "snoozed: kill_switch:reduce_only:environment"
    assert latches(here) == {"environment": "REDUCE_ONLY"}


def test_without_redis_the_journal_stops_and_nothing_is_released(here: System) -> None:
    here.installation.redis.ping()
    here.redis.kill()
    code, words = ended(here, "kill-switch", "on", *WHO)
    assert code == 0, words
    assert "the journal alone holds the switch" in words
    assert latched(here) == "HALT"
    code, words = ended(here, "kill-switch", "off", *WHO)
    assert code == 1, words
    assert "Redis cannot be read" in words
    assert latched(here) == "HALT"


# A clean reconcile before anything goes on


def test_off_is_refused_while_an_order_is_in_doubt(here: System) -> None:
    sending = {"method": "POST", "path": "/fapi/v1/order"}
    here.exchange.faults({"action": "answer_lost_after_execution", "match": sending})
    here.order("doubtful", valid_for_s=300)
    here.run("worker", "orders", "--burst")
    here.exchange.faults()
    assert here.row("doubtful").state == "IN_DOUBT"
    ended(here, "kill-switch", "on", "--timeout", "1s", *WHO)
    code, words = ended(here, "kill-switch", "off", *WHO)
    assert code == 1
    assert "not released: doubtful is IN_DOUBT: wait for reconcile, or `fillonce intents resolve`" in words
    assert latched(here) == "HALT"
    here.start("reconciler")
    here.wait_for_state("doubtful", "FILLED")
    assert ended(here, "kill-switch", "off", *WHO)[0] == 0


def test_off_is_refused_while_an_order_of_ours_is_open_that_no_intent_explains(here: System) -> None:
    bought(here, "opens-the-books")
    gateway = make_gateway(here.installation.settings, SystemClock())
    order = PinnedOrder(
        venue=Venue.USDM, symbol="BTCUSDT", side="BUY", order_type="LIMIT", quantity=Decimal("0.010"),
        price=Decimal(19000), time_in_force="GTC", client_order_id=f"{CLIENT_ORDER_ID_PREFIX}nobody-knows",
        timestamp_ms=gateway.server_time(Venue.USDM).server_time_ms, recv_window_ms=5000,
    )  # fmt: skip
    placed = gateway.place_order(order)
    gateway.close()
    assert isinstance(placed, Accepted)
    ended(here, "kill-switch", "on", *WHO)
    code, words = ended(here, "kill-switch", "off", *WHO)
    assert code == 1
    assert f"unknown to the journal: {placed.order.order_id}" in words
    assert latched(here) == "HALT"


# What is on the wire


def test_command_returns_only_when_what_was_on_the_wire_has_settled(anywhere: System) -> None:
    """The worker is stopped with the answer in its hands: the order is at the exchange, and the journal cannot know."""
    marker = anywhere.folder / "stopped"
    anywhere.order("on-the-wire", valid_for_s=300)
    worker = anywhere.start("worker", "orders", "--burst", faults=f"after_send=stop@{marker}")
    anywhere.until(marker.exists, "the worker to have sent")
    command = begin_cli(anywhere, "kill-switch", "on", "--timeout", "60s", *WHO)
    anywhere.until(lambda: command.log.exists() and "HALT since now" in command.words(), "the switch to be thrown")
    assert command.poll() is None
    assert anywhere.row("on-the-wire").state == "DISPATCHED"
    worker.signal(signal.SIGCONT)
    assert command.wait() == 0, command.tail()
    assert anywhere.row("on-the-wire").state == "FILLED"
    assert "1 requests were on the wire; 1 have settled" in command.words()


def test_command_says_so_when_time_runs_out_and_everything_is_stopped_all_the_same(here: System) -> None:
    marker = here.folder / "stopped"
    here.order("stuck", valid_for_s=300)
    worker = here.start("worker", "orders", "--burst", faults=f"after_send=stop@{marker}")
    here.until(marker.exists, "the worker to have sent")
    code, words = ended(here, "kill-switch", "on", "--timeout", "1s", *WHO)
    assert code == 1, words
    assert "1 requests were on the wire; 0 have settled" in words
    assert "time ran out after 1 s: 1 not settled: stuck" in words
    assert latched(here) == "HALT"
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0
    assert here.row("stuck").state == "FILLED"


# Between admission and dispatch


@pytest.mark.parametrize("resumes", [False, True], ids=["still-halted", "off-again"])
def test_order_admitted_before_the_switch_was_thrown_is_asked_anew(anywhere: System, *, resumes: bool) -> None:
    """A worker is stopped right after admission; it wakes up when the switch is on, or was on and is off again."""
    marker = anywhere.folder / "stopped"
    anywhere.order("caught", valid_for_s=300)
    worker = anywhere.start("worker", "orders", "--burst", faults=f"after_admission=stop@{marker}")
    anywhere.until(marker.exists, "the worker to be admitted")
    assert ended(anywhere, "kill-switch", "on", *WHO)[0] == 0
    if resumes:
        assert ended(anywhere, "kill-switch", "off", *WHO)[0] == 0
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0
    row = anywhere.row("caught")
    assert (row.state, row.attempt, row.snoozes) == ("RECEIVED", 0, 1)
    expected = "snoozed: kill_switch:changed:" if resumes else "snoozed: kill_switch:halt:journal"
    assert (row.reason or "").startswith(expected)
    assert anywhere.exchange.truth()["orders"] == []


@pytest.mark.parametrize("source", ["redis_key", "file"])
def test_order_admitted_before_key_or_file_said_stop_is_not_sent(here: System, source: str) -> None:
    marker = here.folder / "stopped"
    here.order("caught", valid_for_s=300)
    worker = here.start("worker", "orders", "--burst", faults=f"after_admission=stop@{marker}")
    here.until(marker.exists, "the worker to be admitted")
    if source == "file":
        kill_file(here).parent.mkdir(exist_ok=True)
        kill_file(here).touch()
    else:
        here.installation.redis.set(KEY, "true")
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0
    assert (here.row("caught").attempt, here.row("caught").reason) == (0, f"snoozed: kill_switch:halt:{source}")
    assert here.exchange.truth()["orders"] == []
    assert latches(here) == {source: "HALT"}


# Cancel and flatten


def test_open_orders_are_canceled_before_everything_halts(anywhere: System) -> None:
    limits = [f"resting-{number}" for number in range(3)]
    for number, key in enumerate(limits):
        anywhere.order(key, order_type="LIMIT", price=f"{19000 + number}", valid_for_s=300)
    anywhere.run("worker", "orders", "--burst")
    assert [anywhere.row(key).state for key in limits] == ["ACCEPTED"] * 3
    code, words = ended(anywhere, "kill-switch", "on", "--cancel-open-orders", *WHO)
    assert code == 0, words
    assert "3 orders are open or in doubt" in words
    assert [anywhere.row(key).state for key in limits] == ["CANCELED"] * 3
    assert latches(anywhere) == {"operator": "HALT"}
    assert [row[2:] for row in audited(anywhere)] == [("RUN", "CANCEL_ONLY"), ("CANCEL_ONLY", "HALT")]


def test_switch_stays_at_cancel_only_while_an_order_is_not_canceled(here: System) -> None:
    here.order("resting", order_type="LIMIT", price="19000", valid_for_s=300)
    here.run("worker", "orders", "--burst")
    here.exchange.faults({"action": "reply_instead", "canned": "503_unknown", "match": {"method": "DELETE"}})
    code, words = ended(here, "kill-switch", "on", "--cancel-open-orders", "--timeout", "2s", *WHO)
    assert code == 1, words
    assert "stays at CANCEL_ONLY" in words
    assert latches(here) == {"operator": "CANCEL_ONLY"}
    here.exchange.faults()
    assert ended(here, "kill-switch", "on", "--cancel-open-orders", *WHO)[0] == 0
    assert (here.row("resting").state, latched(here)) == ("CANCELED", "HALT")


def test_flatten_shows_first_and_sends_nothing_while_everything_is_halted(here: System) -> None:
    bought(here, "long")
    orders = len(here.exchange.truth()["orders"])
    code, words = ended(here, "flatten", *WHO)
    assert code == 2
    assert "nothing was sent: --yes sends these orders" in words
    ended(here, "kill-switch", "on", *WHO)
    code, words = ended(here, "flatten", "--yes", *WHO)
    assert code == 1
    assert "the kill switch is at HALT" in words
    assert "fillonce kill-switch reduce-only" in words
    assert (net(here), len(here.exchange.truth()["orders"])) == (Decimal("0.010"), orders)


def test_flatten_closes_every_position_once_although_it_is_asked_many_times_at_once(anywhere: System) -> None:
    bought(anywhere, "long-btc", quantity="0.030")
    anywhere.order("short-eth", symbol="ETHUSDT", side="SELL", quantity="0.500")
    for queue in FAST["workers"]:
        anywhere.run("worker", queue, "--burst")
    anywhere.wait_until_booked("short-eth")
    orders = len(anywhere.exchange.truth()["orders"])
    anywhere.start("worker", "urgent")
    ended(anywhere, "kill-switch", "reduce-only", *WHO)
    asked = [begin_cli(anywhere, "flatten", "--yes", *WHO) for _ in range(3)]
    assert [one.wait() for one in asked] == [0, 0, 0], asked[0].tail()
    assert (net(anywhere), net(anywhere, "ETHUSDT")) == (Decimal(0), Decimal(0))
    assert len(anywhere.exchange.truth()["orders"]) == orders + 2
    code, words = ended(anywhere, "flatten", "--yes", *WHO)
    assert (code, "nothing to close" in words) == (0, True)


def test_flatten_that_is_asked_again_before_anything_is_sent_is_the_same_order(here: System) -> None:
    bought(here, "long")
    producer = Producer.of(here.installation)
    with composed(here) as (context, _):
        first, again = plan(context), plan(context)
        orders = [order for one in (*first, *again) for order in one.orders]
        answers = producer.submit_many(orders)
        assert [answer.status.value for answer in answers] == ["accepted", "duplicate"]
        assert {answer.key for answer in answers} == {orders[0].key}
        run_order(context, orders[0].key)
        assert plan(context) == []
    assert net(here) == Decimal(0)


def test_flatten_of_one_symbol_needs_no_worker_and_leaves_the_others(here: System) -> None:
    bought(here, "long-btc")
    bought(here, "long-eth", symbol="ETHUSDT", quantity="0.500")
    code, words = ended(here, "flatten", "BTCUSDT", "--yes", *WHO)
    assert code == 0, words
    assert (net(here), net(here, "ETHUSDT")) == (Decimal(0), Decimal("0.500"))


def test_flatten_goes_on_after_an_exit_of_which_nothing_was_executed(here: System) -> None:
    bought(here, "long")
    body = {"code": -2019, "msg": "Margin is insufficient."}
    rejected = {"action": "reply_instead", "status": 400, "body": body, "match": {"method": "POST", "times": 1}}
    here.exchange.faults(rejected)
    code, words = ended(here, "flatten", "--yes", *WHO)
    here.exchange.faults()
    assert code == 1, words
    assert net(here) == Decimal("0.010")
    code, words = ended(here, "flatten", "--yes", *WHO)
    assert code == 0, words
    assert net(here) == Decimal(0)


# The drill


@pytest.mark.parametrize("value", [None, "false", "no"])
def test_drill_fires_on_the_real_path_and_restores_what_was(anywhere: System, value: str | None) -> None:
    if value is not None:
        anywhere.installation.redis.set(KEY, value, px=600_000)
    before = standing(anywhere)
    code, words = ended(anywhere, "kill-switch", "drill", "--by", "anna", "--json")
    assert code == 0, words
    told = json.loads(next(line for line in words.splitlines() if line.startswith("{")))
    assert told == {
        "has_fired": True,
        "at_dispatch": "snoozed: kill_switch:halt:journal",
        "at_admission": "snoozed: kill_switch:halt",
    }
    assert standing(anywhere) == before
    assert anywhere.exchange.truth()["orders"] == []
    anywhere.order("goes-on")
    anywhere.run("worker", "orders", "--burst")
    assert anywhere.row("goes-on").state == "FILLED"


def test_drill_tells_when_the_switch_does_not_fire(here: System, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tuple(one for one in conditions.CONDITIONS if one is not not_killed)
    monkeypatch.setattr(conditions, "CONDITIONS", broken)
    with composed(here) as (context, switch):
        drilled = drill.hold(context, switch, by="test", reason="test")
    assert not drilled.has_fired
    assert not drilled.is_inconclusive
    assert drilled.at_dispatch != drill.BLOCKED_AT_DISPATCH
    assert drilled.at_admission == drill.BLOCKED_AT_ADMISSION
    assert latches(here) == {}


def test_drill_that_something_else_stops_proves_nothing(here: System) -> None:
    with composed(here) as (context, switch):
        drill.hold(context, switch, by="test", reason="opens the books")
        context.pause.close("usdm", for_ms=600_000, why="429:test", whole_address=False)
        drilled = drill.hold(context, switch, by="test", reason="test")
    assert (drilled.has_fired, drilled.is_inconclusive) == (False, True)
    assert latches(here) == {}


def test_drill_is_refused_while_the_switch_is_on_and_changes_nothing(here: System) -> None:
    ended(here, "kill-switch", "reduce-only", *WHO)
    before = standing(here)
    code, words = ended(here, "kill-switch", "drill", "--by", "anna")
    assert (code, "the switch is on already" in words) == (1, True)
    assert standing(here) == before


@pytest.mark.parametrize(
    ("point", "times", "left"),
    [
        pytest.param("before_admission", 1, "RUN", id="only-noted"),
        pytest.param("after_admission", 1, "HALT", id="journal-latched"),
        pytest.param("before_admission", 2, "RUN", id="key-set"),
    ],
)
def test_drill_that_is_killed_half_way_is_undone_by_the_keeper(
    anywhere: System, point: str, times: int, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anywhere.installation.redis.set(KEY, "false")
    before = standing(anywhere)
    died = anywhere.nursery.start(
        "tests.support.drill_victim", [point, str(times)], environment=anywhere.environment, folder=anywhere.folder,
        name="victim",
    )  # fmt: skip
    assert died.wait() == -signal.SIGKILL, died.tail()
    assert latches(anywhere) == {"drill": left}
    key = anywhere.installation.redis.get(KEY)
    assert (key or b"").startswith(b"drill:") == (point == "before_admission" and times == 2)
    anywhere.start("reconciler")
    anywhere.until(lambda: standing(anywhere) == before, "the keeper to restore what was", timeout_s=90)
    anywhere.start("sweeper")
    anywhere.run("worker", "orders", "--burst")
    assert anywhere.exchange.truth()["orders"] == []
    with anywhere.installation.journal.read() as connection:
        states = set(connection.execute(select(schema.intents.c.state)).scalars())
    assert states == {"EXPIRED"}


# Alerts of the switch


def test_every_change_of_the_switch_is_an_alert_in_the_same_transaction(anywhere: System) -> None:
    ended(anywhere, "kill-switch", "on", *WHO)
    ended(anywhere, "kill-switch", "off", *WHO)
    with anywhere.installation.journal.read() as connection:
        due = followups.open_of_kind(connection, ALERT, now_ms=time.time_ns() // 1_000_000, limit=10)
    told = sorted((one.payload for one in due), key=lambda one: one["values"]["epoch"])
    assert [(one["name"], one["severity"], one["labels"]["to"]) for one in told] == [
        ("kill_switch_changed", alerts.Severity.CRITICAL, "HALT"),
        ("kill_switch_changed", alerts.Severity.WARNING, "RUN"),
    ]
    heads = [one["values"]["audit"] for one in told]
    assert ended(anywhere, "audit", "verify", "--head", heads[0])[0] == 0
    assert ended(anywhere, "audit", "verify", "--head", f"1:{'0' * 64}")[0] == 1
