"""What must stay as it is (S2.60-S2.68): what the core knows, what flags change, old settings, no deed at import.

That every gate is wired into the real path stands in test_selftest.py.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.composition import guard_names
from app.execution.conditions import CONDITIONS
from app.execution.context import ExecutionContext
from app.execution.order import run_order
from app.job_safety.admission import Admitted, Blocked, EffectKind
from app.job_safety.circuit_breaker import BreakerState
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.journal import kill_latches, schema
from app.journal.kill_latches import Change
from app.settings import load_settings
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "app" / "job_safety").glob("*.py"))
CORE_MAY_KNOW = {"app.job_safety", "app.clock", "app.intents", "app.money", "redis"}

# Folders of settings as they were written for earlier versions, word for word: they must load for ever.
FIRST = {
    "config.yaml": "workers:\n  orders: 2\n",
    "policy.yaml": "valid_for_s: 30\n",
    "universe.yaml": "usdm: [BTCUSDT, ETHUSDT]\nspot: [BTCUSDT, ETHUSDT]\n",
}
BEFORE_GATES = {
    "config.yaml": (
        "exchange: {recv_window_ms: 3000, read_timeout_ms: 12000}\n"
        "horizons: {absent_answers: 3, quarantine_after_ms: 120000}\n"
        "guard: {lease_ttl_ms: 4000, lease_renew_ms: 1000, namespace: 'idempotency:effect'}\n"
        "retry: {max_attempts: 5, backoff_base_ms: 200}\n"
        "sweep: {interval_ms: 1000, max_rescues: 3}\n"
        "poll: {interval_ms: 5000, weight_share: '0.10'}\n"
    ),
    "policy.yaml": "valid_for_s: 30\npermit_wait_ms: 1200\ndoubt_closes_symbol: true\n",
}


def imported(source: str) -> Iterator[str]:
    """Yield the modules that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_imports_nothing_but_itself_redis_and_the_standard_library(path: Path) -> None:
    def is_known(name: str) -> bool:
        base = name.partition(".")[0]
        return base in sys.stdlib_module_names or any(
            name == known or name.startswith(f"{known}.") for known in CORE_MAY_KNOW
        )

    assert [name for name in imported(path.read_text()) if not is_known(name)] == []


@pytest.mark.parametrize("files", [FIRST, BEFORE_GATES], ids=["first", "before-gates"])
def test_settings_of_earlier_versions_still_load_and_every_gate_is_on(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {
        "TRADING_MODE": "paper",
        "FILLONCE_CONFIG": str(tmp_path),
        "FILLONCE_HOME": str(tmp_path / "home"),
    }
    settings = load_settings(environment, tmp_path)
    assert (settings.breaker.mode, settings.rate_limits.mode, settings.metrics.enabled) == ("enforce", "enforce", True)
    assert settings.policy.doubt_closes_symbol == (files is BEFORE_GATES)


AT_IMPORT = """
import importlib, json, pkgutil, sys, threading
import app, workers
done = []

def is_urllib3():
    # It binds a socket of its own to learn whether there is IPv6, and closes it at once.
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("urllib3."):
            return True
        frame = frame.f_back
    return False

def hear(event, arguments):
    if event == "socket.bind" and is_urllib3():
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3:
        done.append(f"{event} {arguments[0]} for writing")
    elif event in {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.mkdir", "os.remove"}:
        done.append(f"{event} {arguments!r}")

sys.dont_write_bytecode = True
sys.addaudithook(hear)
names = [one.name for package in (app, workers)
         for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
names = [name for name in names if not name.endswith("__main__") and ".migrations" not in name]
for name in names:
    importlib.import_module(name)
threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
print(json.dumps({"modules": names, "done": done, "threads": threads}))
"""


def test_importing_any_module_writes_connects_starts_and_forks_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AT_IMPORT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert {"app.selftest.run", "workers.supervisor", "app.execution.dispatch"} <= set(found["modules"])
    assert (found["done"], found["threads"]) == ([], [])


OFF = (
    CONFIG.replace("breaker: {", "breaker: {mode: 'off', ")
    + "rate_limits: {mode: 'off'}\nmetrics: {enabled: false, port: 0}\n"
)
OBSERVE = CONFIG.replace("breaker: {", "breaker: {mode: observe, ") + "rate_limits: {mode: observe}\n"
GOLDEN = {
    "filled": ("FILLED", 1, 0, [("ACCEPTED", None)]),
    "too-large": ("REJECTED", 1, 0, [("REFUSED", "usdm_filter")]),
}


def journaled(here: System) -> dict[str, object]:
    """Return what the journal holds of each order that does not differ from run to run."""
    intents, attempts = schema.intents.c, schema.attempts.c
    with here.installation.journal.read() as connection:
        found = {
            row.key: (row.state, row.attempt, row.snoozes)
            for row in connection.execute(select(intents.key, intents.state, intents.attempt, intents.snoozes))
        }
        sent = connection.execute(
            select(attempts.key, attempts.outcome, attempts.rule).order_by(attempts.attempt)
        ).all()
    return {key: (*one, [(row.outcome, row.rule) for row in sent if row.key == key]) for key, one in found.items()}


@pytest.mark.parametrize("config", [CONFIG, OBSERVE, OFF], ids=["enforce", "observe", "off"])
def test_flags_of_gates_and_metrics_change_no_row_of_an_order_that_they_let_pass(
    config: str, tmp_path: Path, nursery: Nursery
) -> None:
    server = RedisServer(tmp_path / "redis").start()
    try:
        with (
            PaperProcess(
                tmp_path / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:100000"
            ) as exchange,
            system(
                tmp_path / "system",
                redis=server,
                database_url=f"sqlite:///{tmp_path / 'journal.db'}",
                exchange=exchange,
                nursery=nursery,
                config=config,
            ) as here,
        ):
            here.order("filled")
            here.order("too-large", quantity="900")
            here.run("worker", "orders", "--burst")
            assert journaled(here) == GOLDEN
            counted = here.installation.redis.keys("metrics:*")
            assert bool(counted) == (config is not OFF)
    finally:
        server.kill()


UNCOUNTED = CONFIG + "metrics: {enabled: false, port: 0}\n"
ALWAYS_BLOCKS = {"kill_switch": True, "pause": True, "kill_switch in the journal": True}


def met(context: ExecutionContext, key: str) -> tuple[str, bool]:
    """Ask to send an order that opens risk; return the gate that it met, and whether that blocked it."""
    answer = context.admission.ask("order", key, kind=EffectKind.OPEN, venue="usdm")
    if isinstance(answer, Blocked):
        return answer.gate, True
    assert isinstance(answer, Admitted), answer
    return answer.would_block.partition(":")[0], False


def gates_met(here: System) -> dict[str, bool]:
    """Close every gate for itself, the kill switch last; return which were met, and whether each blocked."""
    context, redis = here.context("asks"), here.installation.redis
    names = guard_names(here.installation.settings)
    assert met(context, "nothing is closed") == ("", False)
    found = {}
    closed: dict[str, Callable[[], object]] = {
        "breaker": lambda: context.breakers.override("order_usdm", BreakerState.OPEN, by="test", reason="shut"),
        "rate": lambda: (
            context.rate.publish(Venue.USDM, [Limit(kind="orders", window_ms=60_000, most=1)]),
            met(context, "takes the only place"),
        ),
        "pause": lambda: context.pause.close("usdm", for_ms=60_000, why="429:x", whole_address=True),
        "kill_switch": lambda: redis.set(names.kill_switch, "true"),
    }
    for name, close in closed.items():
        redis.flushdb()
        close()
        gate, found[name] = met(context, f"{name} is closed")
        assert gate == name
    redis.flushdb()
    with here.installation.journal.write() as connection:
        latch = Change(source=KillSource.OPERATOR, state=KillState.HALT, actor="test", reason="shut")
        kill_latches.change(connection, latch, now_ms=1)
    text = run_order(context, here.order("stopped-by-the-journal", valid_for_s=300))
    found["kill_switch in the journal"] = text == "snoozed: kill_switch:halt:journal"
    return found


@pytest.mark.parametrize(
    ("config", "blocks"),
    [(CONFIG, True), (UNCOUNTED, True), (OBSERVE, False)],
    ids=["enforce", "metrics-off", "observe"],
)
def test_which_gates_an_order_meets_does_not_change_with_metrics_or_observing(
    config: str, blocks: bool, tmp_path: Path, nursery: Nursery
) -> None:
    """Counting decides nothing; observing lets an order pass breaker and limits, which it meets all the same."""
    server = RedisServer(tmp_path / "redis").start()
    try:
        with (
            PaperProcess(tmp_path / "exchange") as exchange,
            system(
                tmp_path / "system",
                redis=server,
                database_url=f"sqlite:///{tmp_path / 'journal.db'}",
                exchange=exchange,
                nursery=nursery,
                config=config,
            ) as here,
        ):
            assert gates_met(here) == {**ALWAYS_BLOCKS, "breaker": blocks, "rate": blocks}
            assert exchange.truth()["orders"] == []
    finally:
        server.kill()


def test_what_is_asked_again_in_the_transaction_that_dispatches_is_these_and_no_flag_takes_one_out() -> None:
    assert [condition.__name__ for condition in CONDITIONS] == [
        "within_validity", "not_killed", "not_canceled", "looked_up", "symbol_open",
    ]  # fmt: skip
