"""Whether cost stays flat: with a million finished orders and 350,000 guards, beside a system that is empty.

`python -m bench.flat` (or `make flat`) fills the journal and the Redis of one of two systems, has both work in turns,
and asks both what a running system and people ask. Writes JSON into bench/results/. Linux only.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import Redis
from sqlalchemy import event

from app.cli.intent_pages import pages, summary
from app.cli.output import as_table
from app.clock import SystemClock
from app.composition import compose, guard_names
from app.execution.context import ExecutionContext
from app.job_safety.state import IntentState
from app.journal.engine import Journal
from app.settings import load_settings
from app.wiring import Installation, open_installation
from bench import history, machine, output
from bench.percentile import percentile
from bench.throughput.contestants import Contestant
from bench.throughput.plan import ON_SQLITE, Entry
from workers.exporter import make_exporter, serving
from workers.identity import new_owner
from workers.sweeper import sweep

CHUNK: Final = 50_000
"""Orders per transaction, and guards per round trip."""

LOOKS: Final = 15
SCRAPES: Final = 8
ANY_PORT: Final = 0
PAUSE_S: Final = 1.05
"""Longer than an answer of the exporter is given again, so that each one is made anew."""

LISTED: Final = 50
GUARD_TTL_S: Final = 259_200
HEAD: Final = ("what", "empty", "full", "limit", "holds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One line of the table. `limit` in the unit of `full`, or of full by empty for work."""

    name: str
    empty: float | None
    full: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether it is within its limit."""
        if self.empty is not None and self.unit == "jobs/s":
            return self.full / self.empty >= self.limit
        return self.full <= self.limit

    def cells(self) -> list[str]:
        """Return its cells."""
        digits = 1 if self.unit == "ms" else 0
        limit = f">= {self.limit} x" if self.unit == "jobs/s" else f"<= {self.limit:.0f} {self.unit}"
        empty = "-" if self.empty is None else f"{self.empty:.{digits}f}"
        return [self.name, empty, f"{self.full:.{digits}f} {self.unit}", limit, "yes" if self.holds else "NO"]


def main() -> int:
    """Measure; exit 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.flat", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--intents", type=int, default=1_000_000)
    parser.add_argument("--guards", type=int, default=350_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=400, help="jobs per run")
    asked = parser.parse_args()
    facts = machine.facts()
    entry = Entry(kind=ON_SQLITE, workers=1)
    with tempfile.TemporaryDirectory(prefix="flat-") as home:
        empty, full = (Contestant(entry, Path(home) / name, None) for name in ("empty", "full"))
        try:
            for one in (empty, full):
                one.start()
            measured = _measure(_System.of(empty), _System.of(full), asked)
        finally:
            for one in (empty, full):
                one.stop()
    told = {"machine": facts, "asked": vars(asked), "measured": [_fields(one) for one in measured]}
    path = output.write_json("flat", told)
    table = output.plain(HEAD, [one.cells() for one in measured])
    sys.stdout.write("\n".join([*table, *machine.lines(facts), f"written: {path.relative_to(output.ROOT)}", ""]))
    return 0 if all(one.holds for one in measured) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    contestant: Contestant
    installation: Installation
    context: ExecutionContext

    @classmethod
    def of(cls, contestant: Contestant) -> "_System":
        environment = {**contestant.environment, "HOME": str(contestant.folder), "METRICS_PORT": "1"}
        installation = open_installation(load_settings(environment, contestant.folder), SystemClock())
        return cls(contestant=contestant, installation=installation, context=compose(installation, new_owner("bench")))


def _measure(empty: _System, full: _System, asked: argparse.Namespace) -> list[Measured]:
    guard_bytes = _fill(full.installation, asked.intents, asked.guards)
    looks: tuple[tuple[str, Callable[[_System], object], float], ...] = (
        ("sweeper pass", _sweep, 50.0),
        ("intents list", _list, 200.0),
        ("intents list --state", _list_doubts, 200.0),
    )
    found = [
        Measured(name=name, empty=_ms(partial(ask, empty)), full=_ms(partial(ask, full)), limit=limit, unit="ms")
        for name, ask, limit in looks
    ]
    for page in ("/metrics", "/status"):
        at = [percentile(_scrapes(one.installation, page), 50) * 1000 for one in (empty, full)]
        found.append(Measured(name=f"scrape of {page}", empty=at[0], full=at[1], limit=200.0, unit="ms"))
    found.append(Measured(name="memory per guard", empty=None, full=guard_bytes, limit=300.0, unit="bytes"))
    rates = [(empty.contestant.measure(asked.jobs), full.contestant.measure(asked.jobs)) for _ in range(asked.rounds)]
    ratio = statistics.median(of_full.jobs_per_s / of_empty.jobs_per_s for of_empty, of_full in rates)
    base = statistics.median(of_empty.jobs_per_s for of_empty, _ in rates)
    return [Measured(name="jobs/s, one worker", empty=base, full=base * ratio, limit=0.9, unit="jobs/s"), *found]


def _fill(installation: Installation, intents: int, guards: int) -> float:
    """Fill journal and Redis; return bytes of Redis per guard."""
    started_s = time.monotonic()
    journal = Journal(installation.journal.url.render_as_string(hide_password=False))
    event.listen(journal.engine, "connect", lambda opened, _: opened.execute("PRAGMA synchronous=OFF"))
    now_ms = installation.clock.now_ms()
    for first in range(0, intents, CHUNK):
        with journal.write() as connection:
            history.write(connection, min(CHUNK, intents - first), now_ms=now_ms, first=first, of=intents)
    journal.close()
    names, redis = guard_names(installation.settings), installation.redis
    before = _used(redis)
    for first in range(0, guards, CHUNK):
        with redis.pipeline(transaction=False) as batch:
            for number in range(first, min(first + CHUNK, guards)):
                # As `lib_guard.lua` writes it, with a hint as long as that of a filled order.
                batch.set(
                    names.guard("order", f"sma-20261120T1200Z-BTCUSDT-{number}"), "D:FILLED 0.010", ex=GUARD_TTL_S
                )
            batch.execute()
    sys.stderr.write(f"filled in {time.monotonic() - started_s:.0f} s\n")
    return (_used(redis) - before) / guards if guards else 0.0


def _used(redis: Redis) -> int:
    info: Any = redis.info("memory")
    return int(info["used_memory"])


def _ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(LOOKS):
        before_s = time.perf_counter()
        ask()
        times.append(time.perf_counter() - before_s)
    return percentile(times, 50) * 1000


def _sweep(one: _System) -> object:
    return sweep(one.context)


def _list(one: _System, *states: Any) -> object:
    rows = [summary(row) for page in pages(one.installation.journal, states=states, limit=LISTED) for row in page]
    return as_table(list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def _list_doubts(one: _System) -> object:
    return _list(one, IntentState.IN_DOUBT)


def _scrapes(installation: Installation, page: str) -> list[float]:
    found = []
    with serving(replace(make_exporter(installation), port=ANY_PORT)) as port:
        for _ in range(SCRAPES):
            before_s = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", page)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status != http.client.OK:
                raise RuntimeError(f"{page} answered {answer.status}")
            found.append(time.perf_counter() - before_s)
            time.sleep(PAUSE_S)
    return found


def _fields(one: Measured) -> dict[str, object]:
    return {
        "name": one.name,
        "empty": one.empty,
        "full": one.full,
        "limit": one.limit,
        "unit": one.unit,
        "holds": one.holds,
    }


if __name__ == "__main__":
    sys.exit(main())
