"""What is quarantined and no order: a person lets it run again or gives it up. Both databases, real workers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.books import ledger
from app.execution.context import ExecutionContext
from app.execution.kill_status import unsettled
from app.execution.resolve import Ruling, Verdict, VerdictRefusedError, resolve
from app.execution.signal import run_signal
from app.job_safety.state import IntentState
from app.journal import audit
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system
from workers.bookjobs import run_book_job
from workers.sweeper import _quarantine

S = IntentState
POSTING = {"account": "gift", "asset": "USDT", "amount": "5"}, {"account": "cash", "asset": "USDT", "amount": "-5"}
LEDGER: dict[str, Any] = {"type": "ledger", "key": "gift", "description": "a gift", "entries": list(POSTING)}
SIGNAL: dict[str, Any] = {
    "type": "signal", "key": "up", "strategy": "sma", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010",
}  # fmt: skip
RUN: dict[str, Callable[[ExecutionContext, str], str]] = {"ledger": run_book_job, "signal": run_signal}
AGAIN = Ruling(verdict=Verdict.RETRY, reason="the disk was full", by="anna")
GIVEN_UP = Ruling(verdict=Verdict.NOT_EXECUTED, reason="done by hand", by="anna")


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


def quarantined(here: System, intent: dict[str, Any]) -> ExecutionContext:
    """Enqueue `intent` and quarantine it as the sweeper does with what kills its workers; return a hand's context."""
    context = here.context("hand")
    here.enqueue(intent)
    here.installation.redis.delete("rq:queue:ledger", "rq:queue:signals")
    assert _quarantine(context, [here.row(intent["key"])], context.clock.now_ms()) == 1
    return context


def audited(here: System, key: str) -> list[tuple[str, str, str]]:
    with here.installation.journal.read() as connection:
        rows = audit.rows(connection, subject=key)
        assert audit.verify(connection) == []
    details = [(row, json.loads(row.detail)) for row in rows if row.action == "resolve"]
    return [(row.actor, detail["verdict"], detail["reason"]) for row, detail in details]


def gifts(here: System) -> list[str]:
    with here.installation.journal.read() as connection:
        return [str(amount) for amount in ledger.balances(connection, ["gift"]).values()]


@pytest.mark.parametrize("intent", [LEDGER, SIGNAL], ids=["ledger", "signal"])
def test_quarantined_work_runs_once_after_a_person_says_so(here: System, intent: dict[str, Any]) -> None:
    quarantined(here, intent)
    here.start_all()
    here.cli("intents", "resolve", intent["key"], "--as", "retry", "--reason", "the disk was full", "--by", "anna")
    row = here.wait_for_state(intent["key"], S.DONE)
    assert row.rescues == 0
    assert audited(here, intent["key"]) == [("anna", "retry", "the disk was full")]
    if intent is SIGNAL:
        here.wait_until_booked("up:order")
    assert gifts(here) == (["5"] if intent is LEDGER else [])
    with pytest.raises(VerdictRefusedError, match="does not wait for a verdict"):
        resolve(here.context("hand"), intent["key"], AGAIN)


@pytest.mark.parametrize("intent", [LEDGER, SIGNAL], ids=["ledger", "signal"])
def test_quarantined_work_that_is_given_up_has_no_effect_for_ever(here: System, intent: dict[str, Any]) -> None:
    context = quarantined(here, intent)
    row = resolve(context, intent["key"], GIVEN_UP)
    assert (row.state, row.reason) == (S.EXPIRED, "not executed, says anna: done by hand")
    assert RUN[intent["type"]](context, intent["key"]) == "EXPIRED"
    assert gifts(here) == []
    assert audited(here, intent["key"]) == [("anna", "not-executed", "done by hand")]
    with here.installation.journal.read() as connection:
        assert unsettled(connection) == []  # it stands no longer before `kill-switch off`


@pytest.mark.parametrize("intent", [LEDGER, SIGNAL], ids=["ledger", "signal"])
def test_stray_delivery_of_quarantined_work_does_nothing(here: System, intent: dict[str, Any]) -> None:
    context = quarantined(here, intent)
    assert RUN[intent["type"]](context, intent["key"]) == "QUARANTINED"
    assert here.row(intent["key"]).state is S.QUARANTINED


def test_verdicts_that_do_not_fit_are_refused_and_leave_nothing_behind(here: System) -> None:
    context = quarantined(here, LEDGER)
    here.order("poison", valid_for_s=600)
    _quarantine(context, [here.row("poison")], context.clock.now_ms())
    here.enqueue({**LEDGER, "key": "not-quarantined"})
    executed = Ruling(verdict=Verdict.EXECUTED, reason="x", by="anna", order_id=1)
    for key, ruling, why in (
        ("gift", executed, "say retry or not-executed"),
        ("poison", AGAIN, "no verdict sends one"),
        ("not-quarantined", GIVEN_UP, "does not wait for a verdict"),
    ):
        with pytest.raises(VerdictRefusedError, match=why):
            resolve(context, key, ruling)
        assert audited(here, key) == []
