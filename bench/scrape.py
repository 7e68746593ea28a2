"""How long a scrape takes when the journal holds a million finished intents.

`python -m bench.scrape` (or `make scrape`) fills a journal of its own, starts a private Redis and the exporter, and
asks for /metrics and /status over HTTP. `--database-url` names an empty PostgreSQL database instead of SQLite.
Writes JSON into bench/results/.
"""

import argparse
import http.client
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, text

from app.clock import SystemClock
from app.embedded.redis_server import stop_redis
from app.journal import schema
from app.settings import load_settings
from app.wiring import Installation, open_installation
from bench import machine, output
from bench.percentile import percentile
from workers.exporter import make_exporter, serving

CHUNK: Final = 50_000
SPREAD_MS: Final = 30 * 24 * 3_600_000
"""Over how much time the intents are spread, up to now."""

RETRIED_EVERY: Final = 20
OPEN: Final = 100
ANY_PORT: Final = 0
PAUSE_S: Final = 1.05
"""Longer than an answer is given again, so that each one is made anew."""

LIMIT_S: Final = 0.200
_NUMBERS: Final = """
WITH RECURSIVE n(i) AS (
  SELECT CAST(:first AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < CAST(:last AS BIGINT)
)
"""
_AT: Final = "CAST(:start AS BIGINT) + i * CAST(:step AS BIGINT)"
_TRIES: Final = "CASE WHEN i % CAST(:every AS BIGINT) = 0 THEN 2 ELSE 1 END"
INTENTS: Final = f"""{_NUMBERS}
INSERT INTO intents (key, type, state, attempt, queue, venue, symbol, content, content_hash, client_order_id,
  exchange_order_id, opens_risk, created_at_ms, updated_at_ms, finished_at_ms, booked_at_ms)
SELECT 'i' || i, 'order', 'FILLED', {_TRIES}, 'orders', 'usdm', 'BTCUSDT', '{{}}', 'h', 'i' || i, i, TRUE, {_AT}, {_AT},
  {_AT}, {_AT} FROM n
"""  # noqa: S608 - nothing of it comes from outside
ATTEMPTS: Final = f"""{_NUMBERS}
INSERT INTO attempts (key, attempt, owner, fence, client_order_id, timestamp_ms, recv_window_ms, payload_hash,
  config_hash, dispatched_at_ms, outcome)
SELECT 'i' || i, CAST(:number AS INTEGER), 'w', 1, 'i' || i, {_AT}, 3000, 'p', 'c', {_AT} + CAST(:number AS INTEGER),
  'ACCEPTED' FROM n WHERE {_TRIES} >= CAST(:number AS INTEGER)
"""  # noqa: S608 - the same
HEAD: Final = ("page", "answers", "p50", "max", "first", "processor time, mean")


def main() -> int:
    """Measure; exit 1 if half of the scrapes took longer than 200 ms."""
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--intents", type=int, default=1_000_000)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--database-url", help="an empty PostgreSQL database; SQLite if not given")
    asked = parser.parse_args()
    facts = machine.facts()
    home = Path(tempfile.mkdtemp(prefix="scrape-"))
    environment = {"FILLONCE_HOME": str(home), "HOME": str(home), "METRICS_PORT": "1", "TRADING_MODE": "paper"}
    if asked.database_url:
        environment["DATABASE_URL"] = asked.database_url
    installation = open_installation(load_settings(environment, home), SystemClock())
    try:
        started_s = time.monotonic()
        fill(installation, asked.intents)
        print(f"{asked.intents} finished intents and {OPEN} open ones in {time.monotonic() - started_s:.0f} s")
        times, busy = _times(installation, asked.scrapes)
    finally:
        installation.redis.close()
        installation.journal.close()
        stop_redis(home, SystemClock())
        shutil.rmtree(home)
    rows = [_cells(page, found, busy[page]) for page, found in times.items()]
    kind = "PostgreSQL" if asked.database_url else "SQLite"
    path = output.write_json("scrape", {"machine": facts, "intents": asked.intents, "journal": kind, "seconds": times})
    told = [*output.plain(HEAD, rows), *machine.lines(facts), f"written: {path.relative_to(output.ROOT)}"]
    sys.stdout.write("\n".join([*told, ""]))
    return 0 if percentile(times["/metrics"], 50) < LIMIT_S else 1


def fill(installation: Installation, count: int) -> None:
    """Write finished intents with their attempts, evenly over a month, one in twenty retried; and some open ones."""
    now_ms = installation.clock.now_ms()
    for first in range(0, count, CHUNK):
        numbers = {"first": first, "last": min(first + CHUNK, count) - 1, "start": now_ms - SPREAD_MS}
        numbers |= {"step": SPREAD_MS // count, "every": RETRIED_EVERY}
        with installation.journal.write() as connection:
            connection.execute(text(INTENTS), numbers)
            for attempt in (1, 2):
                connection.execute(text(ATTEMPTS), {**numbers, "number": attempt})
    with installation.journal.write() as connection:
        states = ("RECEIVED", "IN_DOUBT", "ACCEPTED", "RETRY_WAIT")
        connection.execute(insert(schema.intents), [_open(f"o{n}", now_ms, states[n % 4]) for n in range(OPEN)])
        connection.execute(text("ANALYZE"))


def _open(key: str, at_ms: int, state: str) -> dict[str, Any]:
    return {
        "key": key, "type": "order", "state": state, "attempt": 1, "queue": "orders", "venue": "usdm",
        "symbol": "BTCUSDT", "content": "{}", "content_hash": "h", "client_order_id": key, "opens_risk": True,
        "run_at_ms": at_ms, "created_at_ms": at_ms, "updated_at_ms": at_ms,
        "in_doubt_since_ms": at_ms if state == "IN_DOUBT" else None, "is_algo": False, "cancel_requested": False,
    }  # fmt: skip


def _times(installation: Installation, scrapes: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return how long each answer took, and how long the processor was busy with one: what a busy machine hides."""
    times: dict[str, list[float]] = {"/metrics": [], "/status": []}
    busy: dict[str, float] = {}
    with serving(replace(make_exporter(installation), port=ANY_PORT)) as port:
        for page, found in times.items():
            before_s = time.process_time()
            for _ in range(scrapes):
                found.append(_ask(port, page))
                time.sleep(PAUSE_S)
            busy[page] = (time.process_time() - before_s) / scrapes
    return times, busy


def _ask(port: int, page: str) -> float:
    before_s = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", page)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{page} answered {answer.status}")
    return time.perf_counter() - before_s


def _cells(page: str, found: list[float], busy_s: float) -> list[str]:
    shown = (percentile(found, 50), max(found), found[0], busy_s)
    return [page, str(len(found)), *(f"{one * 1000:.0f} ms" for one in shown)]


if __name__ == "__main__":
    sys.exit(main())
