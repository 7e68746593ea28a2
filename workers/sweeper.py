"""Find in the journal what should be moving and is not, and hand it to the queues again.

Two sweepers at once do no harm: what is delivered twice finds the guard or the journal.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, update

from app.composition import compose, open_here
from app.delivery import FOLLOWUP, URGENT, Parcel
from app.execution.alarms import alarm
from app.execution.cancel import run_cancel
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.execution.fills import parcels_of
from app.execution.order import run_order
from app.execution.parcels import parcel_of
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.state import SENDABLE, IntentState
from app.journal import followups, intents, schema
from app.journal.followups import Followup
from app.journal.rows import IntentRow
from workers.identity import new_owner
from workers.loop import Stop

BATCH: Final = 500
MAX_LISTED: Final = 20_000
"""A longer queue is not read to see who is in it: what waits there gets its turn."""

SILENCE_S: Final = 5.0
REDIS_PATIENCE_S: Final = 1.0
"""A Redis that hangs longer than this holds up exits, which go out from the journal then."""

FOLLOWUP_GRACE_MS: Final = 3_000
MAX_RESCUES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one pass did."""

    delivered: int = 0
    quarantined: int = 0


def sweep(context: ExecutionContext, *, batch: int = BATCH, max_rescues: int = MAX_RESCUES) -> Swept:
    """Deliver again what is due and waits nowhere; return what was done.

    Args:
        context: The dependencies of this process.
        batch: Rows per pass.
        max_rescues: After so many deaths in a row of whoever worked on it, an intent is quarantined (poison). That a
            store was away, and lost its delivery or failed its job, is not its fault and does not count.

    Raises:
        StoreUnavailableError: the journal or Redis does not answer.
    """
    context.delivery.claim()
    now_ms = context.clock.now_ms()
    with context.journal.look() as connection:
        due = intents.due_for_delivery(connection, now_ms=now_ms, limit=batch)
        late = followups.overdue(connection, now_ms=now_ms - FOLLOWUP_GRACE_MS, limit=batch)
    if not due and not late:
        return Swept()
    waiting = _Waiting(context)
    lost = [row for row in due if not waiting.holds(parcel_of(row))]
    rescued = [row for row in lost if row.not_before_ms < (row.run_at_ms or 0) and not _is_in_hand(context, row)]
    dead = [row for row in rescued if context.delivery.was_begun_by_the_dead(parcel_of(row))]
    poisoned = [row for row in rescued if _is_poison(row, max_rescues)]
    _look_again_later(context, due, dead, now_ms)
    quarantined = _quarantine(context, poisoned, now_ms)
    again = [row for row in lost if row not in poisoned]
    parcels = [parcel_of(row) for row in again] + parcels_of([one for one in late if not waiting.holds(_of(one))])
    context.delivery.deliver(parcels, force=True)
    for row in again:
        if row in rescued:
            context.record.event(
                "rescued", key=row.key, state=row.state.value, rescues=row.rescues + (1 if row in dead else 0)
            )
    return Swept(delivered=len(parcels), quarantined=quarantined)


def _is_in_hand(context: ExecutionContext, row: IntentRow) -> bool:
    """Whether a living worker has it: it may take longer than we look away, and waits in no queue meanwhile."""
    return context.guard.is_leased(row.type, row.key)


def _is_poison(row: IntentRow, max_rescues: int) -> bool:
    """Whether it has been rescued too often. Never a cancel: it may be repeated for as long as it takes."""
    return row.rescues >= max_rescues and row.state in SENDABLE and row.type != "cancel"


def run_urgent(context: ExecutionContext) -> int:
    """Run due cancels, reduce-only and protective orders straight from the journal, because Redis hands nothing over.

    Returns how many were tried. Without Redis there is no guard: the journal's compare-and-set keeps processes apart.
    """
    now_ms = context.clock.now_ms()
    try:
        with context.journal.read() as connection:
            # Only these: thousands of orders that wait for Redis must not stand before a stop.
            urgent = intents.due_for_delivery(connection, now_ms=now_ms, limit=BATCH, queue=URGENT)
    except StoreUnavailableError as error:
        context.record.event("run_from_journal_failed", level="warning", count=False, error=str(error))
        return 0
    for row in urgent:
        try:
            text = run_cancel(context, row.key) if row.type == "cancel" else run_order(context, row.key)
            context.record.event("run_from_journal", count=False, key=row.key, result=text)
        except Exception as error:  # noqa: BLE001 - shown; one that breaks must not stand before the other exits
            words = f"{type(error).__name__}: {error}"
            context.record.event("run_from_journal_failed", level="warning", count=False, key=row.key, error=words)
    return len(urgent)


class _Waiting:
    """Who waits in which queue; each queue is read once per pass, and only if somebody asks."""

    def __init__(self, context: ExecutionContext) -> None:
        self._context = context
        self._ids: dict[str, set[str] | None] = {}

    def holds(self, parcel: Parcel) -> bool:
        """Return whether the parcel waits in its queue, or the queue is too long to tell."""
        delivery = self._context.delivery
        if parcel.queue not in self._ids:
            long = delivery.depth(parcel.queue) > MAX_LISTED
            self._ids[parcel.queue] = None if long else delivery.waiting(parcel.queue)
        ids = self._ids[parcel.queue]
        return ids is None or delivery.job_id(parcel) in ids


def _of(followup: Followup) -> Parcel:
    return Parcel(key=followup.key, type=FOLLOWUP, queue=followup.queue)


def _look_again_later(
    context: ExecutionContext, due: Sequence[IntentRow], dead: Sequence[IntentRow], now_ms: int
) -> None:
    table = schema.intents
    dead_keys = {row.key for row in dead}
    with context.journal.write() as connection:
        # Rows that somebody holds are being moved by that somebody: they are passed over, not waited for.
        wanted = select(table.c.key).where(table.c.key.in_([row.key for row in due]), table.c.run_at_ms <= now_ms)
        free = set(connection.execute(wanted.order_by(table.c.key).with_for_update(skip_locked=True)).scalars())
        for keys, more in ((free & dead_keys, 1), (free - dead_keys, 0)):
            if keys:
                connection.execute(
                    update(table)
                    .where(table.c.key.in_(sorted(keys)))
                    .values(run_at_ms=now_ms + REDELIVER_AFTER_MS, rescues=table.c.rescues + more)
                )


def _quarantine(context: ExecutionContext, rows: Sequence[IntentRow], now_ms: int) -> int:
    count = 0
    for row in rows:
        with context.journal.write() as connection:
            fresh = intents.load(connection, row.key, lock=True)
            if fresh.state not in SENDABLE:
                continue
            if fresh.valid_until_ms is not None and fresh.valid_until_ms <= now_ms:
                # Nothing is left to decide: it may not be sent any more, and every attempt of it is proven absent.
                why = "validity ran out before it was sent"
                intents.move(connection, fresh, IntentState.EXPIRED, now_ms=now_ms, reason=why, booked_at_ms=now_ms)
                context.record.event("expired", key=row.key, why=why)
                continue
            reason = f"poison: rescued {fresh.rescues} times without getting anywhere"
            # One that was dispatched before stays under reconcile; of one that never was there is nothing to ask.
            run_at_ms = now_ms + REDELIVER_AFTER_MS if fresh.attempt else None
            intents.move(connection, fresh, IntentState.QUARANTINED, now_ms=now_ms, reason=reason, run_at_ms=run_at_ms)
            alarm(context, connection, "quarantined", fresh, reason="poison")
        count += 1
    return count


def run_sweeper(*, owner: str | None = None, once: bool = False, stop: Stop | None = None) -> int:
    """Sweep until told to stop, or once; return the exit code."""
    installation = open_here(redis_timeout_s=REDIS_PATIENCE_S)
    context = compose(installation, owner or new_owner("sweeper"))
    stop = stop or Stop.on_signals()
    settings = installation.settings.sweep
    interval_s = settings.interval_ms / 1000
    silent_until_s = 0.0
    while True:
        try:
            sweep(context, batch=settings.batch_size, max_rescues=settings.max_rescues)
            context.record.event("duty_done", level="debug", count=False, duty="sweep")
        except StoreUnavailableError as error:
            if context.clock.monotonic() >= silent_until_s:
                silent_until_s = context.clock.monotonic() + SILENCE_S
                context.record.event("sweep_failed", level="warning", count=False, error=str(error))
            run_urgent(context)
            if once:
                context.record.close()
                return 3
        if once or stop.wait(interval_s):
            context.record.close()
            return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweeper from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.sweeper", description="Deliver again what is not moving.")
    parser.add_argument("--once", action="store_true", help="one pass, then stop")
    return run_sweeper(once=parser.parse_args(arguments).once)


if __name__ == "__main__":
    sys.exit(main())
