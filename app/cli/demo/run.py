"""Runs the demo: fresh stores and exchange, real workers, kills, and the count at the end."""

import json
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from app.books import reports
from app.cli.demo.killer import Killer
from app.cli.demo.table import Result
from app.cli.demo.workload import KLINES_SYMBOL, Step, from_klines, from_seed
from app.cli.ledger_check import check_against_exchange
from app.cli.local_system import LocalSystem
from app.cli.output import say
from app.cli.progress import count_bar
from app.clock import SystemClock
from app.composition import compose
from app.job_safety.errors import RetryableError
from app.job_safety.state import TERMINAL_STATES, IntentState
from app.journal import schema
from app.producer import Producer
from app.settings import load_settings
from app.wiring import Installation, open_installation

PACE_S: Final = 0.12
"""Between two intents: a stream, so that orders are on the wire when the killer looks."""

LATENCY_MS: Final = 30
"""The local exchange answers this much later than it could, as one across a network does."""

KILL_EVERY_S: Final = 2.0
SETTLE_LIMIT_S: Final = 150
STRIKE_TRIES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do."""

    intents: int
    kills: int
    seed: int
    klines: Path | None = None


def run(plan: Plan) -> Result:
    """Do it and count.

    Raises:
        StoreUnavailableError: something did not start.
    """
    clock = SystemClock()
    home = Path(tempfile.mkdtemp(prefix="fillonce-demo-"))
    settings = load_settings({"FILLONCE_HOME": str(home), "HOME": str(home)}, home)
    started = clock.monotonic()
    say(f"demo: private Redis, SQLite and local exchange under {home}")
    with (home / "log.jsonl").open("wb") as log, LocalSystem(settings=settings, clock=clock, log=log) as system:
        system.start_stores()
        klines = ["--klines", str(plan.klines), "--klines-symbol", KLINES_SYMBOL] if plan.klines else []
        system.start_exchange(["--seed", str(plan.seed), "--limits", "wide", "--history", "0", *klines])
        exchange = _Control(system.settings.exchange.futures_url or "")
        exchange.post("faults", {"seed": plan.seed, "rules": _latency()})
        installation = open_installation(system.settings, clock)
        system.start_supervisor("urgent=1,orders=2", extra={"METRICS_PORT": "0"})
        source = from_klines(plan.klines, plan.intents) if plan.klines else from_seed(plan.seed, plan.intents)
        steps = list(source)
        say(f"{len(steps)} intents, {plan.kills} workers to kill, limits wide, seed {plan.seed}")
        killer = Killer(journal=installation.journal, redis=installation.redis)
        parts = _Parts(installation=installation, exchange=exchange, killer=killer)
        with count_bar("intents finished") as show:
            _feed(plan, steps, parts, show)
            _wait_until_finished(installation, show)
        result = _count(plan, parts, seconds=round(clock.monotonic() - started))
        installation.journal.close()
    return result


def _feed(plan: Plan, steps: list[Step], parts: "_Parts", show: Callable[[int, int], None]) -> None:
    installation, exchange, killer = parts.installation, parts.exchange, parts.killer
    clock = installation.clock
    producer = Producer(
        journal=installation.journal,
        delivery=installation.delivery,
        clock=clock,
        account=installation.account,
        mode=installation.mode,
        default_valid_for_s=installation.settings.policy.valid_for_s,
    )
    # The kills fall into the first half: later orders are the witnesses that settle what they leave in doubt.
    spacing = max(1, len(steps) // (2 * plan.kills)) if plan.kills else 0
    left = plan.kills
    for number, step in enumerate(steps, start=1):
        if step.candles:
            exchange.post("step", {"candles": step.candles})
        producer.submit(step.intent)
        show(_finished(installation), len(steps))
        if left and number % spacing == 0:
            left -= _strike(killer, clock)
        clock.sleep(PACE_S)
    for _ in range(STRIKE_TRIES):
        if not left:
            return
        left -= _strike(killer, clock, tries=1)
        clock.sleep(0.005)


def _strike(killer: Killer, clock: SystemClock | Any, *, tries: int = 200) -> int:
    for _ in range(tries):
        if killer.strike():
            return 1
        clock.sleep(0.002)
    return 0


def _wait_until_finished(installation: Installation, show: Callable[[int, int], None]) -> None:
    deadline = installation.clock.monotonic() + SETTLE_LIMIT_S
    while installation.clock.monotonic() < deadline:
        done, total = _finished(installation), _total(installation)
        show(done, total)
        if done == total:
            return
        installation.clock.sleep(0.2)


def _count(plan: Plan, parts: "_Parts", *, seconds: int) -> Result:
    installation, exchange, killer = parts.installation, parts.exchange, parts.killer
    truth = exchange.get("truth/summary")
    table = schema.intents.c
    with installation.journal.read() as connection:
        counted = select(table.state, func.count()).where(table.type == "order").group_by(table.state)
        states: dict[str, int] = dict(connection.execute(counted).tuples().all())
        orders = sum(states.values())
        unfinished = _total(installation) - _finished(installation)
        fills = connection.execute(select(func.count()).select_from(schema.fills)).scalar() or 0
        pnl = sum((row.net for row in reports.pnl_total(connection) if row.asset == "USDT"), Decimal(0))
        doubts = connection.execute(
            select(func.count()).select_from(schema.attempts).where(schema.attempts.c.settled_by != "dispatch")
        ).scalar()
    expired = states.get(IntentState.EXPIRED.value, 0)
    at_exchange = sum(truth[venue]["orders"] for venue in ("futures", "spot"))
    duplicates = sum(truth[venue]["duplicated_client_order_ids"] for venue in ("futures", "spot"))
    # Each order intent that was not closed as expired or rejected must stand at the exchange.
    missing = orders - expired - states.get(IntentState.REJECTED.value, 0) - (at_exchange - duplicates)
    try:
        differences = len(check_against_exchange(compose(installation, "demo")).differences)
    except RetryableError as error:
        say(f"ledger check: {error}")
        differences = -1
    return Result(
        intents=plan.intents if plan.klines is None else _total(installation, "signal"),
        orders=at_exchange,
        duplicates=duplicates,
        lost=max(missing, 0) + unfinished,
        expired=expired,
        fills=fills,
        differences=differences,
        pnl=pnl,
        kills=len(killer.dead),
        kills_wanted=plan.kills,
        kills_on_the_wire=killer.on_the_wire(),
        in_doubt=doubts or 0,
        seconds=seconds,
        seed=plan.seed,
        home=installation.settings.stores.home,
    )


def _total(installation: Installation, intent_type: str | None = None) -> int:
    table = schema.intents.c
    query = select(func.count()).select_from(schema.intents)
    if intent_type is not None:
        query = query.where(table.type == intent_type)
    with installation.journal.read() as connection:
        return connection.execute(query).scalar() or 0


def _finished(installation: Installation) -> int:
    table = schema.intents.c
    terminal = [state.value for state in TERMINAL_STATES]
    query = select(func.count()).select_from(schema.intents)
    query = query.where(table.state.in_(terminal), table.booked_at_ms.is_not(None))
    with installation.journal.read() as connection:
        return connection.execute(query).scalar() or 0


def _latency() -> list[dict[str, object]]:
    """Half of the orders are executed late, so that a worker dies before its order exists; all are answered late."""
    orders = {"method": "POST", "path": "/*/order"}
    late = {"action": "delay_before_ms", "ms": LATENCY_MS, "match": {**orders, "probability": 0.5}}
    return [
        {"name": "slow way there", **late},
        {"name": "slow way back", "action": "delay_reply_ms", "ms": LATENCY_MS, "match": orders},
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the demo has running."""

    installation: Installation
    exchange: "_Control"
    killer: Killer


class _Control:
    """The local exchange's control plane, which no real exchange has."""

    def __init__(self, futures_url: str) -> None:
        self._base = futures_url.removesuffix("/fapi") + "/paper/"

    def get(self, path: str) -> dict[str, Any]:
        """Return what the exchange says."""
        return self._call(urllib.request.Request(self._base + path))  # noqa: S310 - loopback http, made above

    def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """Send `body`."""
        data = json.dumps(body).encode()
        return self._call(urllib.request.Request(self._base + path, data=data, method="POST"))  # noqa: S310 - the same

    def _call(self, request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            told: dict[str, Any] = json.load(answer)
        return told
