"""Delivers alerts from the outbox to the hooks: log line and metric, and the webhook. At-least-once, beside the work.

A row is claimed, told, and marked done; a process that dies in between leaves it to the next one, which tells it again
under the same id. The row itself stays in the journal. A webhook that hangs or fails holds up nobody but this thread.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.clock import Clock
from app.execution.context import ExecutionContext
from app.job_safety.errors import StoreUnavailableError
from app.journal import followups
from app.journal.alerts import Severity
from app.journal.engine import Journal
from app.journal.followups import ALERT, Followup
from app.observability.recorder import Recorder
from app.observability.webhook import Webhook, WebhookError
from app.settings.model import AlertSettings
from workers.loop import Stop

POLL_S: Final = 1.0
BATCH: Final = 20
QUIET_S: Final = 5.0
_LEVELS: Final = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "critical"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How hard it is tried."""

    min_severity: Severity = Severity.INFO
    retry_base_ms: int = 1_000
    retry_max_ms: int = 60_000
    give_up_after_ms: int = 86_400_000
    claim_ms: int = 30_000
    """For how long a claimed alert is left to who claimed it."""

    def pause_ms(self, tries: int) -> int:
        """Return how long to wait after the `tries`-th failure, from 0 on."""
        return min(self.retry_base_ms << min(tries, 16), self.retry_max_ms)


class AlertDeliverer:
    """One deliverer. Several do no harm."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        record: Recorder,
        *,
        webhook: Webhook | None,
        terms: Terms,
        origin: Mapping[str, str],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._record = record
        self._webhook = webhook
        self._terms = terms
        self._origin = origin

    def step(self) -> int:
        """Deliver what is due; return how many alerts were told to every hook.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        with self._journal.look() as connection:
            due = followups.open_of_kind(connection, ALERT, now_ms=self._clock.now_ms(), limit=BATCH)
        return sum(self._deliver(one) for one in due)

    def _deliver(self, seen: Followup) -> bool:
        now_ms = self._clock.now_ms()
        with self._journal.write() as connection:
            if not followups.claim(connection, seen, now_ms=now_ms, until_ms=now_ms + self._terms.claim_ms):
                return False
            entry = followups.load_open(connection, seen.key)
        if entry is None:
            return False
        alert = {**entry.payload, **self._origin}
        severity = Severity(alert["severity"])
        if entry.tries == 0:
            self._tell(alert, severity)
        if self._webhook is None or severity.rank < self._terms.min_severity.rank:
            return self._finish(entry)
        try:
            self._webhook.send(alert)
        except WebhookError as error:
            return self._failed(entry, alert, str(error))
        self._record.event("alert_delivered", alert=alert["name"], alert_id=alert["id"], tries=entry.tries + 1)
        return self._finish(entry)

    def _tell(self, alert: Mapping[str, Any], severity: Severity) -> None:
        """Log line and metric. Told once, unless this process dies before the row says so."""
        self._record.event(
            "alert", level=_LEVELS[severity], alert=alert["name"], alert_id=alert["id"], severity=severity.value,
            labels=alert["labels"], values=alert["values"], summary=alert["summary"],
        )  # fmt: skip

    def _finish(self, entry: Followup) -> bool:
        with self._journal.write() as connection:
            followups.finish(connection, entry.key, now_ms=self._clock.now_ms())
        return True

    def _failed(self, entry: Followup, alert: Mapping[str, Any], error: str) -> bool:
        now_ms = self._clock.now_ms()
        is_over = now_ms - int(alert["at_ms"]) >= self._terms.give_up_after_ms
        run_at_ms = now_ms + self._terms.pause_ms(entry.tries)
        with self._journal.write() as connection:
            followups.postpone(connection, entry.key, run_at_ms=run_at_ms, error=error)
            if is_over:
                followups.finish(connection, entry.key, now_ms=now_ms)
        name = "alert_given_up" if is_over else "alert_not_delivered"
        self._record.event(
            name, level="error" if is_over else "warning", alert=alert["name"], alert_id=alert["id"],
            tries=entry.tries + 1, error=error,
        )  # fmt: skip
        return False


def terms_of(settings: AlertSettings) -> Terms:
    """Return how hard it is tried, as configured."""
    return Terms(
        min_severity=Severity(settings.min_severity),
        retry_base_ms=settings.retry_base_ms,
        retry_max_ms=settings.retry_max_ms,
        give_up_after_ms=settings.give_up_after_s * 1000,
        claim_ms=settings.timeout_ms * 2 + 5_000,
    )


def make_deliverer(context: ExecutionContext, settings: AlertSettings) -> AlertDeliverer:
    """Return the deliverer of one process."""
    url = settings.webhook_url
    return AlertDeliverer(
        context.journal,
        context.clock,
        context.record,
        webhook=None if url is None else Webhook(url.reveal(), timeout_s=settings.timeout_ms / 1000),
        terms=terms_of(settings),
        origin={"account": context.account, "mode": context.mode},
    )


def deliver_until(stop: Stop, deliverer: AlertDeliverer, record: Recorder) -> None:
    """Deliver until told to stop; a journal that does not answer is waited for."""
    told_s = 0.0
    while not stop.wait(POLL_S):
        try:
            deliverer.step()
        except StoreUnavailableError as error:
            if time.monotonic() - told_s > QUIET_S:
                told_s = time.monotonic()
                record.event("alerts_wait", level="warning", count=False, error=str(error))


def start(stop: Stop, context: ExecutionContext, settings: AlertSettings) -> threading.Thread:
    """Deliver in a thread of its own: a webhook may hang."""
    deliverer = make_deliverer(context, settings)
    thread = threading.Thread(target=deliver_until, args=(stop, deliverer, context.record), name="alerts", daemon=True)
    thread.start()
    return thread
