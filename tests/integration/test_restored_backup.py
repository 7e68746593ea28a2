"""A backup in the journal's place: `fillonce restore` makes it fit to trade. Both databases, processes that are killed.

The protocol's counterexamples prove the rule in virtual time (`test_protocol_counterexamples.py`, 9); this is the way
that a person goes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select

from app.clock import SystemClock
from app.execution.restored import StillRunningError, begin_epoch
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.state import IntentState
from app.journal import audit, kill_latches, meta, schema
from app.journal.rows import IntentRow
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

S = IntentState
Backup = Mapping[Table, Sequence[Mapping[str, Any]]]
WHY = ("--reason", "disk lost; dump of noon", "--by", "anna")


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, database_url: str, nursery: Nursery
) -> Iterator[System]:
    del redis_url  # an empty server
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=database_url, exchange=exchange, nursery=nursery
        ) as one,
    ):
        yield one


def back_up(here: System) -> Backup:
    with here.installation.journal.read() as connection:
        return {
            table: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in schema.metadata.sorted_tables
        }


def put_back(here: System, backup: Backup) -> None:
    """Put a backup in the journal's place, and nothing else: the journal does not know what happened to it."""
    with here.installation.journal.write() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(table.delete())
        for table, rows in backup.items():
            for row in rows:
                connection.execute(table.insert().values(**row))


def stop_all(here: System) -> None:
    """Kill every process, and wait until the account's queues are nobody's."""
    for process in here.processes:
        process.kill()
    here.until(lambda: here.installation.delivery.claimed_for_ms() == 0, "the claim of the dead to run out")


def refused(here: System, *arguments: str) -> str:
    """Run a command that must end with exit code 1; return what it wrote."""
    one = here.nursery.start(
        "app.cli.main", arguments, environment=here.environment, folder=here.folder, name="refused"
    )
    assert one.wait() == 1, one.tail()
    return one.words()


def was_looked_at(row: IntentRow) -> bool:
    """Whether a worker has met it, or the sweep, which may be quicker, has found it at the exchange."""
    return row.snoozes > 0 or row.attempt > 0 or row.state is S.FILLED


def test_order_that_was_dispatched_after_the_backup_is_not_sent_again(here: System) -> None:
    here.start_all()
    here.order("before")
    here.wait_until_booked("before")
    stop_all(here)
    here.order("forgotten-dispatch")
    backup = back_up(here)
    here.start_all()
    here.order("forgotten-intent")
    here.wait_until_booked("forgotten-dispatch", "forgotten-intent")
    sent = len(here.exchange.truth()["orders"])
    stop_all(here)
    put_back(here, backup)
    assert here.row("forgotten-dispatch").state is S.RECEIVED

    assert "could be sent and are looked up first" in here.cli("restore", *WHY)
    here.start_all()
    here.order("forgotten-intent")  # its producer submits again: the journal takes it for new
    here.until(lambda: was_looked_at(here.row("forgotten-intent")), "a look")
    assert len(here.exchange.truth()["orders"]) == sent

    def is_off() -> bool:
        one = here.nursery.start(
            "app.cli.main", ("kill-switch", "off", "--reason", "compared", "--by", "anna"),
            environment=here.environment, folder=here.folder, name="off",
        )  # fmt: skip
        return one.wait() == 0

    here.until(is_off, "a clean reconcile")
    rows = here.wait_until_booked("forgotten-dispatch", "forgotten-intent", timeout_s=120)
    assert {row.state for row in rows} == {S.FILLED}
    here.order("after")
    here.wait_until_booked("after")
    assert len(here.exchange.truth()["orders"]) == sent + 1
    here.cli("ledger", "check")


def is_past(moment_ms: int) -> bool:
    return SystemClock().now_ms() > moment_ms


def test_restore_halts_in_a_new_epoch_that_no_restore_of_the_same_backup_meets_again(here: System) -> None:
    backup = back_up(here)
    epochs = []
    for _ in range(2):
        put_back(here, backup)
        context = here.context("hand")
        before_ms = SystemClock().now_ms()
        epochs.append(begin_epoch(context, by="anna", reason="dump of noon").epoch)
        again = begin_epoch(context, by="anna", reason="said twice")
        epochs.append(again.epoch)
        with here.installation.journal.read() as connection:
            stamp = meta.load(connection)
            latch = kill_latches.of(connection, KillSource.OPERATOR)
            rows = audit.rows(connection, subject="journal")
            assert audit.verify(connection) == []
        assert stamp.restored_at_ms is not None
        assert stamp.restored_at_ms >= before_ms
        assert latch is not None
        assert (latch.state, latch.actor) == (KillState.HALT, "anna")
        told = [(row.actor, row.action, json.loads(row.detail)["why"]) for row in rows]
        assert told == [("anna", "restore", "dump of noon"), ("anna", "restore", "said twice")]
        here.until(partial(is_past, SystemClock().now_ms() + 2_000), "a later second")
    assert len(set(epochs)) == 4
    assert epochs == sorted(epochs)


def test_restore_is_refused_while_anything_runs_on_the_account_and_changes_nothing(here: System) -> None:
    here.start("sweeper")
    here.until(lambda: here.installation.delivery.claimed_for_ms() > 0, "the sweeper to claim the queues")
    assert "stop all of them" in refused(here, "restore", *WHY)
    with here.installation.journal.read() as connection:
        assert (meta.load(connection).epoch, meta.load(connection).restored_at_ms) == (1, None)
        assert kill_latches.held(connection) == []
    with pytest.raises(StillRunningError):
        begin_epoch(here.context("hand"), by="anna", reason="x")


def test_clock_of_ours_that_is_behind_does_not_bring_the_fence_forward(here: System) -> None:
    """A forgotten request was pinned by the exchange's clock."""
    here.exchange.control("POST", "clock", {"advance_ms": 3_600_000})
    restored = begin_epoch(here.context("hand"), by="anna", reason="dump of noon")
    assert restored.restored_at_ms > SystemClock().now_ms() + 3_500_000
