"""Alerts: told at least once, once per window, and never in the way of an order."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.journal import alerts, followups, meta, migrate, schema
from app.journal.alerts import Alert, Severity
from app.journal.engine import Journal
from app.journal.followups import ALERT
from app.observability.webhook import Webhook, WebhookError
from tests.support.clock import FakeClock
from tests.support.kill import WHO, run_cli
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system
from tests.support.webhook_receiver import WebhookReceiver
from workers.alerts import AlertDeliverer, Terms

START_MS = 1_800_000_000_000


class Told:
    """A recorder that keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    opened = Journal(database_url)
    migrate.upgrade(opened)
    meta.claim(opened, account="main", mode="paper", now_ms=1)
    yield opened
    opened.close()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as one:
        yield one


def raised(journal: Journal, now_ms: int, **changes: Any) -> bool:
    fields: dict[str, Any] = {"name": "api_errors", "severity": Severity.WARNING, "summary": "errors", **changes}
    with journal.write() as connection:
        return alerts.raise_alert(connection, Alert(**fields), now_ms=now_ms)


def payloads(journal: Journal) -> list[dict[str, Any]]:
    with journal.read() as connection:
        return [dict(one.payload) for one in followups.open_of_kind(connection, ALERT, now_ms=10**15, limit=100)]


def deliverer(
    journal: Journal, clock: FakeClock, receiver: WebhookReceiver | None, told: Told, **terms: Any
) -> AlertDeliverer:
    webhook = None if receiver is None else Webhook(receiver.url, timeout_s=0.5)
    return AlertDeliverer(
        journal,
        clock,
        told,
        webhook=webhook,
        terms=Terms(**terms),
        origin={"account": "main", "mode": "paper"},  # type: ignore[arg-type]
    )


# What is one alert


def test_ten_errors_with_ten_numbers_in_one_window_are_one_alert(journal: Journal) -> None:
    new = [raised(journal, START_MS + n, values={"count": n}, summary=f"{n} consecutive errors") for n in range(10)]
    assert new == [True, *[False] * 9]
    (payload,) = payloads(journal)
    assert (payload["times"], payload["values"]) == (10, {"count": 0})


def test_next_window_other_labels_and_other_names_are_alerts_of_their_own(journal: Journal) -> None:
    raised(journal, START_MS)
    assert raised(journal, START_MS + alerts.DEDUPE_MS)
    assert raised(journal, START_MS, labels={"venue": "usdm"})
    assert raised(journal, START_MS, labels={"venue": "spot"})
    assert raised(journal, START_MS, name="other")
    assert len({payload["id"] for payload in payloads(journal)}) == 5


def test_occurrences_that_are_named_are_never_merged_and_told_once_each(journal: Journal) -> None:
    assert raised(journal, START_MS, occurrence="epoch-1")
    assert raised(journal, START_MS, occurrence="epoch-2")
    assert not raised(journal, START_MS + 10 * alerts.DEDUPE_MS, occurrence="epoch-1")


def test_fingerprint_is_name_and_labels_whatever_their_order() -> None:
    one = Alert(name="a", severity=Severity.INFO, summary="x", labels={"b": "1", "c": "2"}, values={"n": 1})
    two = Alert(name="a", severity=Severity.CRITICAL, summary="y", labels={"c": "2", "b": "1"}, values={"n": 2})
    assert one.fingerprint == two.fingerprint
    assert Severity.INFO.rank < Severity.WARNING.rank < Severity.CRITICAL.rank


# Delivery


def test_alert_is_logged_counted_and_posted_once_and_its_row_stays(journal: Journal, receiver: WebhookReceiver) -> None:
    raised(journal, START_MS, labels={"venue": "usdm"}, values={"count": 3})
    told = Told()
    one = deliverer(journal, FakeClock(START_MS), receiver, told)
    assert [one.step(), one.step()] == [1, 0]
    ((key, body),) = receiver.got
    assert (body["name"], body["severity"], body["labels"], body["values"]) == (
        "api_errors", "warning", {"venue": "usdm"}, {"count": 3},
    )  # fmt: skip
    assert (body["id"], body["account"], body["mode"]) == (key, "main", "paper")
    assert told.names() == ["alert", "alert_delivered"]
    with journal.read() as connection:
        done = connection.execute(select(schema.followups.c.done_at_ms)).scalars().all()
    assert done == [START_MS]


def test_webhook_that_fails_is_tried_again_ever_later_under_the_same_id(
    journal: Journal, receiver: WebhookReceiver
) -> None:
    raised(journal, START_MS)
    receiver.status, clock, told = 503, FakeClock(START_MS), Told()
    one = deliverer(journal, clock, receiver, told, retry_base_ms=1_000, retry_max_ms=4_000)
    waits = []
    for _ in range(4):
        one.step()
        with journal.read() as connection:
            (again_ms,) = connection.execute(select(schema.followups.c.run_at_ms)).scalars()
        waits.append(again_ms - clock.now_ms())
        clock.advance(again_ms - clock.now_ms() - 1)
        assert one.step() == 0, "not before its time"
        clock.advance(1)
    receiver.status = 204
    assert one.step() == 1
    assert waits == [1_000, 2_000, 4_000, 4_000]
    assert len(receiver.got) == 5
    assert len(set(receiver.ids())) == 1
    assert told.names().count("alert") == 1, "the log line and the metric are not repeated"


def test_webhook_that_hangs_costs_its_timeout_and_the_alert_is_kept(
    journal: Journal, receiver: WebhookReceiver
) -> None:
    raised(journal, START_MS)
    receiver.hang()
    clock, told = FakeClock(START_MS), Told()
    one = deliverer(journal, clock, receiver, told)
    assert one.step() == 0
    assert told.names() == ["alert", "alert_not_delivered"]
    receiver.go_on()
    clock.advance(60_000)
    assert one.step() == 1


def test_alert_that_cannot_be_delivered_for_long_is_given_up_visibly(
    journal: Journal, receiver: WebhookReceiver
) -> None:
    raised(journal, START_MS)
    receiver.status, clock, told = 500, FakeClock(START_MS), Told()
    one = deliverer(journal, clock, receiver, told, give_up_after_ms=10_000)
    one.step()
    clock.advance(10_000)
    one.step()
    clock.advance(100_000)
    assert one.step() == 0
    assert told.names()[-1] == "alert_given_up"
    assert len(receiver.got) == 2


def test_alert_below_the_least_severity_is_logged_and_not_posted(journal: Journal, receiver: WebhookReceiver) -> None:
    raised(journal, START_MS, severity=Severity.INFO)
    told = Told()
    assert deliverer(journal, FakeClock(START_MS), receiver, told, min_severity=Severity.WARNING).step() == 1
    assert (receiver.got, told.names()) == ([], ["alert"])


def test_without_a_webhook_an_alert_is_logged_and_done(journal: Journal) -> None:
    raised(journal, START_MS)
    told = Told()
    assert deliverer(journal, FakeClock(START_MS), None, told).step() == 1
    assert told.names() == ["alert"]


def test_error_of_the_webhook_never_quotes_its_address(receiver: WebhookReceiver) -> None:
    receiver.status = 403
    with pytest.raises(WebhookError) as refused:
        Webhook(receiver.url, timeout_s=1).send({"id": "x"})
    with pytest.raises(WebhookError) as unreachable:
        Webhook("http://127.0.0.1:1/hook?token=hush", timeout_s=1).send({"id": "x"})
    assert "hush" not in f"{refused.value!r}{unreachable.value!r}"


# The real keeper


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    config = f"{CONFIG}alerts: {{timeout_ms: 300, retry_base_ms: 100, retry_max_ms: 200}}\n"
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=f"sqlite:///{tmp_path / 'journal.db'}",
            exchange=exchange, nursery=nursery, config=config,
        ) as one,
    ):  # fmt: skip
        yield one


def test_hanging_webhook_holds_up_no_order(here: System, receiver: WebhookReceiver) -> None:
    receiver.hang()
    here.start("reconciler", ALERT_WEBHOOK_URL=receiver.url)
    for queue in ("orders", "positions", "ledger", "pnl"):
        here.start("worker", queue)
    run_cli(here, "kill-switch", "reduce-only", *WHO)
    run_cli(here, "kill-switch", "off", *WHO)
    receiver.until(lambda: len(receiver.got) >= 2, "the webhook to hang")
    here.order("meanwhile")
    here.wait_until_booked("meanwhile")
    assert here.row("meanwhile").state == "FILLED"
    receiver.go_on()
    receiver.until(lambda: {body["labels"]["to"] for _, body in receiver.got} == {"REDUCE_ONLY", "RUN"}, "both changes")


def test_alert_outlives_kill_9_of_its_deliverer_and_keeps_its_id(here: System, receiver: WebhookReceiver) -> None:
    receiver.hang()
    keeper = here.start("reconciler", ALERT_WEBHOOK_URL=receiver.url)
    run_cli(here, "kill-switch", "on", *WHO)
    receiver.until(lambda: bool(receiver.got), "the alert to be on its way")
    keeper.signal(signal.SIGKILL)
    keeper.wait()
    before = len(receiver.got)
    receiver.go_on()
    here.start("reconciler", ALERT_WEBHOOK_URL=receiver.url)
    receiver.until(lambda: len(receiver.got) > before, "the alert to be told again")
    assert len(set(receiver.ids())) == 1
    here.until(lambda: not here_alerts(here), "its row to be done")


def here_alerts(here: System) -> list[object]:
    with here.installation.journal.read() as connection:
        return list(followups.open_of_kind(connection, ALERT, now_ms=10**15, limit=10))


def test_quarantined_order_is_an_alert_with_its_key(here: System, receiver: WebhookReceiver) -> None:
    from tests.support.kill import composed
    from workers.sweeper import _quarantine

    here.order("poison")
    with composed(here) as (context, _):
        _quarantine(context, [here.row("poison")], context.clock.now_ms())
    here.start("reconciler", ALERT_WEBHOOK_URL=receiver.url)
    receiver.until(lambda: bool(receiver.got), "the alert")
    (_, body) = receiver.got[0]
    assert (body["name"], body["severity"], body["values"]["key"]) == ("quarantined", "critical", "poison")
    assert body["labels"] == {"venue": "usdm", "symbol": "BTCUSDT"}
