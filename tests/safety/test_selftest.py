"""`fillonce selftest`: every gate is proven on the real path, one that is taken out is found, and no order leaves."""

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import SystemClock
from app.exchange import gateway
from app.execution import conditions, kill, order
from app.job_safety import admission, redis_safety, scripts
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.side_effect_guard import Token
from app.job_safety.state import DOUBTFUL, IntentState
from app.journal import schema
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.selftest import run
from app.selftest.run import NAMES, Report, SelfTestRefusedError
from app.settings import TradingMode
from tests.support.kill import run_cli, standing
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def anywhere(database_url: str, tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    with installed(tmp_path, redis, nursery, database_url) as one:
        yield one


@pytest.fixture
def here(tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    with installed(tmp_path, redis, nursery, f"sqlite:///{tmp_path / 'journal.db'}") as one:
        yield one


@contextlib.contextmanager
def installed(
    tmp_path: Path, redis: RedisServer, nursery: Nursery, url: str, config: str = CONFIG, **environment: str
) -> Iterator[System]:
    redis.renew()
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(
            PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:1000000")
        )
        yield stack.enter_context(
            system(
                tmp_path / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery, config=config,
                **environment,
            )
        )  # fmt: skip


def held(here: System) -> Report:
    """Hold a self test in this process."""
    opened = here.installation
    record = Recorder(make_logger(owner="test"), opened.redis, SystemClock(), mode=opened.mode, account=opened.account)
    try:
        return run.hold(opened, record, by="test")
    finally:
        record.close()


def not_fired(report: Report) -> set[str]:
    return {one.gate for one in report.tried if not one.has_fired}


def gates_in_redis(here: System) -> dict[bytes, Any]:
    """Return every key that decides about orders, with its value as Redis stores it.

    Not what was used of the exchange's limits: a self test asks for the time, and that counts.
    """
    client = here.installation.redis
    prefixes = (b"idempotency:", b"circuit_breaker:", b"rate_limit:", b"quantum:")
    return {key: client.dump(key) for key in client.keys("*") if key.startswith(prefixes) and b":used:" not in key}


def told(here: System, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    one = run_cli(here, "selftest", "--json", *arguments, **environment)
    line = next((line for line in one.words().splitlines() if line.startswith('{"is_proven"')), "{}")
    return one.wait(), json.loads(line), one.words()


def test_every_gate_fires_and_nothing_is_changed_or_sent(anywhere: System) -> None:
    client = anywhere.installation.redis
    client.set("quantum:global:kill_switch", "false")
    before = standing(anywhere)
    code, found, words = told(anywhere, "--by", "anna")
    assert code == 0, words
    assert {one["gate"] for one in found["gates"]} == set(NAMES)
    assert found["control"] == "passed every gate"
    assert standing(anywhere) == before
    assert [key for key in client.keys("*") if b"selftest" in key] == []
    assert anywhere.exchange.truth()["orders"] == []
    with anywhere.installation.journal.read() as connection:
        assert set(connection.execute(select(schema.intents.c.state)).scalars()) == {"EXPIRED"}
        assert set(connection.execute(select(schema.intents.c.attempt)).scalars()) == {0}
        row = connection.execute(select(schema.audit).where(schema.audit.c.action == "selftest")).mappings().one()
    assert (row["actor"], set(json.loads(row["detail"])["gates"])) == ("anna", set(NAMES))


def _ask_without_redis(self: admission.Admission, *arguments: Any, **options: Any) -> Any:
    try:
        return ASK(self, *arguments, **options)
    except StoreUnavailableError:
        return admission.Admitted(token=Token("nobody#1"))


ASK = admission.Admission.ask
SOURCE = scripts.source


def without(*names: str) -> tuple[Any, ...]:
    return tuple(one for one in conditions.CONDITIONS if getattr(one, "__name__", "") not in names)


def lua(old: str, new: str) -> Any:
    assert old in SOURCE("admit")
    return lambda name, **options: SOURCE(name, **options).replace(old, new)


BROKEN: list[tuple[str, Any, str, Any]] = [
    ("kill_switch", conditions, "CONDITIONS", without("not_killed")),
    ("kill_file", kill, "denied", lambda *_: None),
    ("pause", scripts, "source", lua("if left ~= -2 then return", "if false then return")),
    ("pause_orders", scripts, "source", lua("if left ~= -2 then return", "if false then return")),
    ("breaker", scripts, "source", lua("if circuit then pass = breaker_gate(circuit, now) end", "")),
    ("rate", scripts, "source", lua("if rate then full = rate_gate(rate, now) end", "")),
    ("guard", scripts, "source", lua("if value and value ~= 'L:' .. token then", "if false then")),
    ("redis_lost", admission.Admission, "ask", _ask_without_redis),
    ("journal", order, "SENDABLE", frozenset(IntentState) - DOUBTFUL),
    ("validity", order, "_validity_is_over", lambda *_: False),
    ("validity_at_dispatch", conditions, "CONDITIONS", without("within_validity")),
    ("canceled_at_dispatch", conditions, "CONDITIONS", without("not_canceled")),
    ("classifier", gateway, "classify_answer", lambda **_: None),
    ("redis_unsafe", redis_safety, "_eviction", lambda _facts: redis_safety._ok("eviction", "looked away")),
]


def test_a_gate_that_is_taken_out_of_the_path_is_reported_and_no_order_leaves(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {gate for gate, *_ in BROKEN} == set(NAMES)
    assert not_fired(held(here)) == set()
    for gate, place, name, broken in BROKEN:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            report = held(here)
        assert gate in not_fired(report), (gate, report)
        assert not report.is_proven
        assert report.control == "passed every gate", gate
    assert not_fired(held(here)) == set()
    assert here.exchange.truth()["orders"] == []


UNTESTED = sorted(set(TradingMode) - {TradingMode.PAPER, TradingMode.TESTNET})
WHY = {
    TradingMode.DRY_RUN: "dry_run sends nothing that a gate could stop",
    TradingMode.LIVE: "its drill would hold up real orders in live; prove the same settings in paper",
}


@pytest.mark.parametrize("mode", UNTESTED)
def test_modes_in_which_it_would_prove_nothing_or_hold_up_real_orders_are_refused(
    here: System, mode: TradingMode
) -> None:
    """Before anything is touched. Settings refuse mode live now; this must hold when they no longer do."""
    opened = here.installation
    settings = opened.settings.model_copy(update={"mode": mode})
    log = make_logger(owner="test")
    record = Recorder(log, opened.redis, SystemClock(), mode=mode.value, account=opened.account, is_counting=False)
    before, stands = gates_in_redis(here), standing(here)
    with pytest.raises(SelfTestRefusedError) as refused:
        run.hold(replace(opened, settings=settings), record, by="test")
    assert str(refused.value).startswith(f"mode {mode.value}: a self test needs paper or testnet: ")
    assert WHY[mode] in str(refused.value)
    assert (gates_in_redis(here), standing(here), audit_rows(here)) == (before, stands, 0)


def audit_rows(here: System) -> int:
    with here.installation.journal.read() as connection:
        return len(connection.execute(select(schema.audit)).all())


def test_command_in_mode_dry_run_is_refused_with_the_reason(
    tmp_path: Path, redis: RedisServer, nursery: Nursery
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with installed(tmp_path, redis, nursery, url, config="", TRADING_MODE="dry_run") as one:
        code, found, words = told(one)
        assert (code, found) == (1, {}), words
        assert f"mode dry_run: a self test needs paper or testnet: {WHY[TradingMode.DRY_RUN]}" in words
        assert audit_rows(one) == 0


def test_command_in_mode_live_is_refused_with_the_reason(here: System) -> None:
    code, found, words = told(here, TRADING_MODE="live")
    assert (code, found) == (2, {}), words
    assert "mode live is refused" in words
    assert audit_rows(here) == 0


def test_a_gate_that_the_settings_turn_off_is_not_called_proven(
    tmp_path: Path, redis: RedisServer, nursery: Nursery
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    config = CONFIG.replace("breaker: {", "breaker: {mode: observe, ") + "rate_limits: {mode: 'off'}\n"
    with installed(tmp_path, redis, nursery, url, config) as here:
        code, found, words = told(here)
    assert code == 1, words
    missing = {one["gate"]: one["text"] for one in found["gates"] if not one["has_fired"]}
    assert missing == {
        "breaker": "passed every gate: breaker.mode is observe",
        "rate": "passed every gate: rate_limits.mode is off",
    }


def test_a_self_test_that_is_killed_leaves_every_gate_as_it_was(here: System) -> None:
    assert not_fired(held(here)) == set()
    before = gates_in_redis(here)
    marker = here.folder / "struck"
    one = run_cli(here, "selftest", FILLONCE_FAULTS=f"in_dispatch_transaction=kill@{marker}")
    assert (one.wait(), marker.exists()) == (-signal.SIGKILL, True)
    after = gates_in_redis(here)
    assert {key: value for key, value in after.items() if b"selftest" not in key} == before
    assert here.exchange.truth()["orders"] == []
    here.until(lambda: told(here)[0] == 0, "the next self test to take away what that one left")
    # The guard of its order is a lease, which nobody renews and nobody but its order needs.
    here.until(lambda: not [key for key in gates_in_redis(here) if b"selftest" in key], "its last lease to end")


def test_when_each_gate_was_proven_is_kept_in_redis(here: System) -> None:
    assert not_fired(held(here)) == set()
    times = here.installation.redis.hgetall("metrics:times:paper:main")
    proven = {json.loads(field)[1] for field in times if b"safety_gate_last_proof" in field}
    assert proven == set(NAMES)
