"""The exporter on a real system: what it shows, when it says not ready, and that nothing else depends on it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.cli.output import iso
from app.execution.conditions import Pin
from app.execution.dispatch import pinned_order
from app.intents import OrderIntent, from_canonical
from app.job_safety.outcome import Accepted, Venue
from app.observability.catalog import CATALOG
from tests.support.kill import composed, run_cli
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer, free_port
from tests.support.system import System, system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def here(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery, port: int) -> Iterator[System]:
    """An installation on SQLite, or on what an indirect parameter names."""
    redis_server = request.getfixturevalue("redis_server")
    request.getfixturevalue("redis_url")
    is_sqlite = getattr(request, "param", "sqlite") == "sqlite"
    url = f"sqlite:///{tmp_path / 'journal.db'}" if is_sqlite else request.getfixturevalue("postgres_url")
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=url, exchange=exchange, nursery=nursery,
            METRICS_PORT=str(port),
        ) as one,
    ):  # fmt: skip
        yield one


def get(port: int, path: str, accept: str = "*/*") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def start_exporter(here: System, port: int) -> None:
    here.start("exporter")
    here.until(lambda: _listens(port) or None, "the exporter to listen")


def _listens(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False


def numbers(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(get(port, "/metrics")[1]):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def number(port: int, name: str, **labels: str) -> float | None:
    return numbers(port).get((name, tuple(sorted(labels.items()))))


def until_number(here: System, port: int, wanted: float, name: str, **labels: str) -> None:
    here.until(lambda: number(port, name, **labels) == wanted or None, f"{name}{labels} to be {wanted}")


def until_ready(here: System, port: int, *, ready: bool) -> str:
    def look() -> str | None:
        code, body = get(port, "/readyz?format=text")
        return body if (code == 200) is ready else None

    return here.until(look, f"ready to be {ready}")


@pytest.mark.parametrize("here", ["sqlite", "postgres"], indirect=True)
def test_numbers_of_orders_that_were_placed_retried_and_refused(here: System, port: int) -> None:
    start_exporter(here, port)
    match = {"method": "POST", "path": "/fapi/v1/order", "times": 1}
    here.exchange.faults({"action": "reply_instead", "canned": "503_throttled_1008", "match": match})
    here.order("retried")
    here.submit({"type": "order", "key": "retried", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"})
    here.start_all()
    here.wait_until_booked("retried")
    assert number(port, "retries_total", job_type="order_usdm") == 1
    assert number(port, "retry_total_count", job_type="order_usdm") == 1
    assert number(port, "retry_successes_total", job_type="order_usdm") == 1
    assert number(port, "retry_success_rate", job_type="order_usdm") == 1
    assert number(port, "retry_avg_attempts", job_type="order_usdm") == 2
    assert number(port, "retry_rate_per_minute", job_type="order_usdm") == pytest.approx(1 / 60)
    assert number(port, "duplicate_blocked_total", job_type="order_usdm", by="enqueue") == 1
    assert number(port, "duplicate_executed_total", job_type="order_usdm") == 0
    until_number(here, port, 1, "trader_fills_total", venue="usdm")
    assert number(port, "trader_open_positions", venue="usdm") == 1
    assert number(port, "intents_open", state="RECEIVED") == 0
    # Each process brings what it has counted to Redis in its own time, and one event's counts not always together.
    until_number(here, port, 1, "orders_placed_total", symbol="BTCUSDT", side="BUY")
    until_number(here, port, 1, "apply_executed_total", status="success")
    until_number(here, port, 1, "dispatch_seconds_count", job_type="order_usdm", outcome="Accepted")
    here.until(
        lambda: (number(port, "duty_last_run_timestamp_seconds", duty="sweep") or 0) > 1_700_000_000,
        "the sweeper to have told when it swept",
    )


def test_numbers_of_a_circuit_that_has_counted_and_of_one_that_a_person_opened(here: System, port: int) -> None:
    start_exporter(here, port)
    here.exchange.faults({"action": "reply_instead", "canned": "503_unavailable", "match": {"path": "/fapi/v1/order"}})
    here.order("refused")
    here.run("worker", "orders", "--burst")
    until_number(here, port, 1, "exchange_api_consecutive_errors", job_type="order_usdm")
    until_number(here, port, 1, "exchange_api_errors_total", venue="usdm", failure_class="exchange_down")
    assert number(port, "circuit_breaker_state", job_type="order_usdm") == 0
    here.cli("circuit", "open", "order_usdm", "--reason", "maintenance", "--by", "anna")
    here.order("held-back")
    here.run("worker", "orders", "--burst")
    until_number(here, port, 1, "trader_circuit_breaker_trips_total", job_type="order_usdm")
    told = {
        name: [number(port, name, job_type=job) for job in ("order_usdm", "order_spot")]
        for name in ("circuit_breaker_state", "trader_circuit_breaker_state", "circuit_breaker_override")
    }
    assert told == {
        "circuit_breaker_state": [2, 0], "trader_circuit_breaker_state": [1, 0], "circuit_breaker_override": [1, 0],
    }  # fmt: skip
    until_number(here, port, 0.5, "retry_block_rate", job_type="order_usdm")
    here.cli("circuit", "half-open", "order_usdm", "--reason", "they are back", "--by", "anna")
    until_number(here, port, 1, "circuit_breaker_state", job_type="order_usdm")


def test_numbers_of_what_rests_was_refused_and_was_earned(here: System, port: int) -> None:
    start_exporter(here, port)
    here.start_all()
    here.order("bought")
    here.order("sold", side="SELL")
    here.order("too-small", quantity="0.001")
    here.order("rests", order_type="LIMIT", price="15000")
    here.wait_until_booked("bought", "sold", "too-small")
    here.wait_for_state("rests", "ACCEPTED")
    until_number(here, port, 1, "trader_pending_orders")
    until_number(here, port, 1, "trader_order_rejections_total", venue="usdm")
    until_number(here, port, 2, "trader_fills_total", venue="usdm")
    names = ("trader_pnl_daily_usd", "trader_pnl_weekly_usd", "trader_total_pnl_usd")
    once = numbers(port)
    daily, weekly, total = [once.get((name, ())) for name in names]
    assert daily is not None
    assert daily == weekly == total
    assert daily < 0, "the spread and two commissions"
    until_number(here, port, pytest.approx(2 / 3), "trader_fill_ratio")
    epoch = number(port, "kill_switch_epoch")
    here.cli("kill-switch", "on", "--reason", "to see the epoch", "--by", "anna")
    until_number(here, port, (epoch or 0) + 1, "kill_switch_epoch")
    until_number(here, port, 1, "kill_switch_active", source="journal")


def test_every_name_of_the_catalog_is_told_of_and_no_other(here: System, port: int) -> None:
    start_exporter(here, port)
    text = get(port, "/metrics")[1]
    told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert told == list(CATALOG)
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert kinds == {name: metric.kind.value for name, metric in CATALOG.items()}


def test_counts_outlive_the_worker_that_was_killed(here: System, port: int) -> None:
    start_exporter(here, port)
    worker = here.start("worker", "orders")
    for count in range(3):
        here.order(f"before-{count}")
    until_number(here, port, 3, "attempts_total", job_type="order_usdm", outcome="Accepted")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert number(port, "attempts_total", job_type="order_usdm", outcome="Accepted") == 3
    here.start("worker", "orders")
    here.order("after")
    until_number(here, port, 4, "attempts_total", job_type="order_usdm", outcome="Accepted")


def test_status_reads_as_json_for_programs_and_as_text_for_people(here: System, port: int) -> None:
    start_exporter(here, port)
    here.order("waits")
    told: Any = json.loads(get(port, "/status")[1])
    assert (told["mode"], told["kill_switch"]["state"], told["open"]["RECEIVED"]) == ("paper", "RUN", 1)
    assert told["queues"]["orders"] == {"depth": 1, "oldest_s": told["queues"]["orders"]["oldest_s"], "workers": 0}
    assert {one["job_type"]: one["state"] for one in told["breakers"]}["order_usdm"] == "closed"
    text = get(port, "/status", "text/html,application/xhtml+xml")[1]
    assert "kill switch   RUN" in text
    assert "orders: 1 wait" in text
    assert "open          1 RECEIVED\n" in text
    assert "<- nobody works on it" in text


def test_what_is_in_doubt_is_named(here: System, port: int) -> None:
    match = {"method": "POST", "path": "/fapi/v1/order", "times": 1}
    here.exchange.faults({"action": "answer_lost_after_execution", "match": match})
    here.order("lost")
    here.run("worker", "orders", "--burst")
    here.wait_for_state("lost", "IN_DOUBT")
    start_exporter(here, port)
    told: Any = json.loads(get(port, "/status")[1])
    assert (told["in_doubt"]["count"], told["in_doubt"]["keys"]) == (1, ["lost"])
    assert number(port, "intents_in_doubt") == 1
    assert (number(port, "in_doubt_oldest_seconds") or 0) > 0


def test_second_order_under_one_id_is_counted_once_however_often_it_is_seen(here: System, port: int) -> None:
    here.order("twice")
    here.run("worker", "orders", "--burst")
    row = here.wait_for_state("twice", "FILLED")
    context = here.context("somebody-else")
    intent = from_canonical(row.content)
    assert isinstance(intent, OrderIntent)
    pin = Pin(timestamp_ms=context.exchange_clock.lower_bound_ms(Venue.USDM), recv_window_ms=2000)
    assert isinstance(context.gateway.place_order(pinned_order(row, intent, pin)), Accepted)
    for _ in range(3):
        here.run("reconciler", "--once")
    start_exporter(here, port)
    until_number(here, port, 1, "duplicate_executed_total", job_type="order_usdm")
    assert number(port, "side_effect_duplicates", type="order_usdm") == 1
    assert (number(port, "alarms_total", alarm="duplicate_order") or 0) >= 1


def test_not_ready_while_the_kill_switch_is_on_and_says_so(here: System, port: int) -> None:
    start_exporter(here, port)
    until_ready(here, port, ready=True)
    here.installation.redis.set("quantum:global:kill_switch", "true")
    assert "kill switch: redis_key HALT" in until_ready(here, port, ready=False)
    assert number(port, "kill_switch_active", source="redis_key") == 1
    assert number(port, "kill_switch_active", source="all") == 1
    assert get(port, "/healthz")[0] == 200
    here.installation.redis.set("quantum:global:kill_switch", "false")
    until_ready(here, port, ready=True)


@pytest.mark.parametrize("here", ["sqlite", "postgres"], indirect=True)
def test_status_and_the_command_name_the_same_holders_of_the_kill_switch(here: System, port: int) -> None:
    """The key that our own command wrote is its latch once more, and no second holder."""
    start_exporter(here, port)
    until_ready(here, port, ready=True)
    here.cli("kill-switch", "on", "--reason", "orders without end", "--by", "anna")
    assert until_ready(here, port, ready=False).splitlines()[1:] == ["kill switch: operator HALT"]
    assert held_by(here, port) == {"operator": "HALT"}
    told = here.cli("kill-switch", "status", "--json")
    since = iso(json.loads(told.splitlines()[-1])["sources"]["operator"]["since_ms"])
    words = f"operator holds HALT since {since}, by anna: orders without end"
    assert f"kill switch   HALT: {words}\n" in get(port, "/status?format=text")[1]
    assert words in run_cli(here, "status").words()
    here.installation.redis.set("quantum:global:kill_switch", "reduce_only")
    here.until(lambda: held_by(here, port) == {"operator": "HALT", "redis_key": "REDUCE_ONLY"} or None, "both")
    text = get(port, "/status?format=text")[1]
    assert f"kill switch   HALT: {words}; redis_key says REDUCE_ONLY\n" in text
    with composed(here) as (_, switch):
        switch.mirror()
    here.until(lambda: "redis_key holds REDUCE_ONLY since" in get(port, "/status?format=text")[1] or None, "the latch")
    assert held_by(here, port) == {"operator": "HALT", "redis_key": "REDUCE_ONLY"}


def held_by(here: System, port: int) -> dict[str, str]:
    """Return who holds the switch by `/status`, which `kill-switch status` must say too."""
    shown: Any = json.loads(get(port, "/status")[1])["kill_switch"]["sources"]
    by_status = {name: state for name, state in shown.items() if state != "RUN"}
    told = json.loads(here.cli("kill-switch", "status", "--json").splitlines()[-1])["sources"]
    holders = {name for name, one in told.items() if {one["holds"], one["says_now"]} - {"RUN", None}}
    return by_status if by_status.keys() == holders else {"kill-switch status": str(holders), "/status": str(shown)}


def test_kill_switch_that_cannot_be_read_is_told_by_store(here: System, port: int, redis_server: RedisServer) -> None:
    start_exporter(here, port)
    until_ready(here, port, ready=True)
    redis_server.kill()
    assert "kill switch: redis_key REDUCE_ONLY\n" in until_ready(here, port, ready=False)
    assert "kill switch   REDUCE_ONLY: redis_key says unreadable\n" in get(port, "/status?format=text")[1]


def test_not_ready_while_a_venue_is_paused(here: System, port: int) -> None:
    start_exporter(here, port)
    until_ready(here, port, ready=True)
    here.installation.redis.set("rate_limit:pause:paper:usdm", "418:banned", px=600_000)
    assert "usdm is paused for" in until_ready(here, port, ready=False)
    assert (number(port, "gate_pause_seconds", venue="usdm") or 0) > 500


def test_not_ready_without_the_exchange_s_time(here: System, port: int) -> None:
    here.exchange.kill()
    start_exporter(here, port)
    assert "the exchange's time is not known (usdm)" in until_ready(here, port, ready=False)
    assert number(port, "exchange_clock_known", venue="usdm") == 0


def test_redis_that_is_away_is_told_of_and_what_the_journal_knows_is_shown(
    here: System, port: int, redis_server: RedisServer
) -> None:
    start_exporter(here, port)
    here.order("waits")
    redis_server.kill()
    assert "redis does not answer" in until_ready(here, port, ready=False)
    until_number(here, port, 0, "store_up", store="redis")
    found = numbers(port)
    assert found["intents_open", (("state", "RECEIVED"),)] == 1
    # What cannot be read is absent: a zero would be a lie.
    assert not [name for name, _ in found if name == "queue_depth"]
    redis_server.start()
    until_number(here, port, 1, "store_up", store="redis")


def test_redis_that_hangs_holds_up_a_scrape_for_a_moment_only(
    here: System, port: int, redis_server: RedisServer
) -> None:
    start_exporter(here, port)
    redis_server.pause()
    try:
        until_number(here, port, 0, "store_up", store="redis")
    finally:
        redis_server.resume()
    until_number(here, port, 1, "store_up", store="redis")


def test_port_that_is_taken_is_said_and_ends_the_exporter_alone(here: System, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        one = here.start("exporter")
        assert one.wait() == 1
    assert f"port {port} on 127.0.0.1 is taken by another program: set METRICS_PORT" in one.words()


def supervisor(here: System, log: Path) -> "subprocess.Popen[bytes]":
    environment = {**here.environment, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.supervisor", "--workers", "orders=1"],
            env=environment, cwd=here.folder, stderr=file, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def test_supervised_exporter_serves_and_a_taken_port_stops_nothing(here: System, port: int) -> None:
    """The log says so once; orders are placed; when the port is free, it is taken."""
    log = here.folder / "supervisor.log"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        one = supervisor(here, log)
        try:
            here.until(lambda: "exporter_not_listening" in log.read_text() or None, "the log to say so")
            here.order("first")
            here.wait_until_booked("first")
            taken.close()
            here.until(lambda: _listens(port) or None, "the exporter to listen")
            until_number(here, port, 1, "orders_placed_total", symbol="BTCUSDT", side="BUY")
            assert log.read_text().count("exporter_not_listening") == 1
        finally:
            one.terminate()
            one.wait(60)


def test_nothing_is_counted_where_metrics_are_off(here: System) -> None:
    config = here.folder / "config" / "config.yaml"
    config.write_text(f"{config.read_text()}\nmetrics: {{enabled: false}}\n")
    here.order("first")
    here.run("worker", "orders", "--burst")
    assert here.row("first").state == "FILLED"
    assert here.installation.redis.keys("metrics:*") == []


def test_command_line_says_how_it_stands_without_an_exporter(here: System) -> None:
    assert "kill switch   RUN" in here.cli("status")
    told: Any = json.loads(here.cli("status", "--json").splitlines()[-1])
    assert told["ready"] is True


def test_history_is_listed_and_exported(here: System) -> None:
    here.order("first")
    here.run("worker", "orders", "--burst")
    assert "first" in here.cli("retries", "list")
    lines = [json.loads(line) for line in here.cli("retries", "export").splitlines() if line.startswith("{")]
    assert [(one["key"], one["attempt"], one["result"]) for one in lines] == [("first", 1, "ACCEPTED")]
    table = here.folder / "attempts.csv"
    here.cli("retries", "export", "--format", "csv", "--output", str(table), "--since", "1h", "--type", "order_usdm")
    head, row = table.read_text().splitlines()
    assert head.startswith("time,key,job_type,symbol,attempt,class,")
    assert ",first,order_usdm,BTCUSDT,1," in row
