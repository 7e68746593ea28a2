"""`fillonce circuit advise` over a journal with a storm in it, on both databases: told, and nothing changed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from app.clock import SystemClock
from app.journal import meta, migrate, schema
from app.journal.engine import Journal
from tests.support.nursery import Nursery, Process

CALLS, STORM, EVERY_MS = 400, range(120, 180), 1_000


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    with opened.write() as connection:
        fill(connection)
    yield opened
    opened.close()


def fill(connection: Connection) -> None:
    begin_ms = (SystemClock().now_ms() - 3_600_000) // 60_000 * 60_000  # so that the storm fills one window
    intents, attempts = [], []
    for number in range(CALLS):
        at_ms, is_lost = begin_ms + number * EVERY_MS, number in STORM
        intents.append(
            {
                "key": f"k{number}", "type": "order", "state": "FILLED", "attempt": 1, "queue": "orders",
                "venue": "usdm", "symbol": "BTCUSDT", "content": "{}", "content_hash": "h",
                "opens_risk": number % 100 != 99, "created_at_ms": at_ms, "updated_at_ms": at_ms,
                "is_algo": False, "cancel_requested": False,
            }
        )  # fmt: skip
        attempts.append(
            {
                "key": f"k{number}", "attempt": 1, "owner": "w", "fence": 1, "client_order_id": f"k{number}",
                "timestamp_ms": at_ms, "recv_window_ms": 3_000, "payload_hash": "p", "config_hash": "c",
                "dispatched_at_ms": at_ms, "outcome": "ACCEPTED", "settled_at_ms": at_ms + 100,
                "settled_by": "reconcile" if is_lost else "dispatch", "unknown_at_ms": at_ms + 90 if is_lost else None,
                "rule": "execution_status_unknown" if is_lost else None,
            }
        )  # fmt: skip
    connection.execute(insert(schema.intents), intents)
    connection.execute(insert(schema.attempts), attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adviser:
    """Runs `fillonce circuit advise` on a journal."""

    nursery: Nursery
    journal: Journal
    folder: Path

    def __call__(self, name: str, *arguments: str) -> Process:
        environment = {
            "DATABASE_URL": self.journal.url.render_as_string(hide_password=False), "TRADING_MODE": "paper",
            "FILLONCE_HOME": str(self.folder),
        }  # fmt: skip
        one = self.nursery.start(
            "app.cli.main", ["circuit", "advise", *arguments], environment=environment, folder=self.folder, name=name,
            has_errors_apart=True,
        )  # fmt: skip
        assert one.wait() == 0, one.errors.read_text()
        return one


def test_storm_is_replayed_at_four_settings_and_nothing_is_changed(
    journal: Journal, tmp_path: Path, nursery: Nursery
) -> None:
    advise = Adviser(nursery=nursery, journal=journal, folder=tmp_path)
    found = {one["job_type"]: one for one in map(json.loads, advise("json", "--json").words().splitlines())}
    opening = found["order_usdm"]
    assert (opening["calls"], opening["failures"], opening["longest_row"]) == (396, 60, 180)
    assert (opening["median_percent"], opening["max_percent"]) == (0, 100)
    by_name = {one["setting"]: one for one in opening["settings"]}
    assert list(by_name) == ["present", "stricter", "looser", "loosest"]
    spared = [by_name[name]["failure_weight_spared"] for name in ("stricter", "present", "looser", "loosest")]
    assert spared == sorted(spared, reverse=True)
    assert by_name["present"]["opened"] == 1
    assert opening["recommended"] == "present"
    assert (found["reduce_usdm"]["calls"], found["reduce_usdm"]["recommended"]) == (4, None)
    table = advise("table")
    assert "order_usdm   present             50            9       1" in table.words()
    assert "reduce_usdm: too little to go by: 4 calls" in table.errors.read_text()
    assert advise("lately", "--since", "5m", "--json").words() == ""
    with journal.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.audit)).scalar() == 0
