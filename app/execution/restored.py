"""A backup that was put in the journal's place has forgotten what was sent after it was made: it begins a new epoch.

The time of the restore becomes the fence of everything that may have been forgotten, and every order is looked up at
the exchange before it is sent (`recheck`). See ADR 0015.
"""

from dataclasses import dataclass
from typing import Final

from app.execution.context import ExecutionContext
from app.job_safety.errors import TerminalError
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.outcome import Venue
from app.job_safety.state import DOUBTFUL, SENDABLE
from app.journal import audit, intents, kill_latches, meta, restore
from app.journal.kill_latches import Change

SUBJECT: Final = "journal"


class StillRunningError(TerminalError):
    """Processes serve the queues of this account, or did a moment ago; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How it stands after. `sendable` intents are looked up before they are sent, `doubtful` ones are reconciled."""

    epoch: int
    restored_at_ms: int
    sendable: int
    doubtful: int


def begin_epoch(context: ExecutionContext, *, by: str, reason: str) -> Restored:
    """Hold the kill switch at HALT and begin a new epoch, in one transaction, audited.

    Saying it again is safe: one more epoch begins, and its fence is later.

    Raises:
        StillRunningError: somebody works for this account; nothing was changed.
        ExchangeQueryError: an exchange does not tell its time, which may be later than ours; nothing was changed.
        StoreUnavailableError: a store does not answer; nothing was changed unless the answer to the commit was lost.
    """
    left_ms = context.delivery.claimed_for_ms()
    if left_ms > 0:
        raise StillRunningError(
            f"processes of account {context.account!r} are running, or were so until lately: stop all of them, "
            f"wait {-(-left_ms // 1000)} s, and say it again"
        )
    # What was forgotten was pinned by the exchange's clock; which of the two is ahead does not matter to a fence.
    venues = () if context.is_dry_run else tuple(Venue)
    now_ms = context.clock.now_ms()
    fence_ms = max(now_ms, *(context.gateway.server_time(venue).server_time_ms for venue in venues), 0)
    halt = Change(
        source=KillSource.OPERATOR, state=KillState.HALT, actor=by, reason=f"restored from a backup: {reason}"[:500],
        config_hash=context.config_hash,
    )  # fmt: skip
    with context.journal.write() as connection:
        changed = kill_latches.change(connection, halt, now_ms=now_ms)
        before = meta.load(connection)
        restore.new_epoch_of_backup(connection, now_ms=fence_ms)
        after = meta.load(connection)
        restored = Restored(
            epoch=after.epoch,
            restored_at_ms=after.restored_at_ms or fence_ms,
            sendable=intents.count_orders(connection, SENDABLE),
            doubtful=intents.count_orders(connection, DOUBTFUL),
        )
        detail = {
            "why": reason, "epoch_from": before.epoch, "epoch_to": after.epoch,
            "restored_at_ms": restored.restored_at_ms, "sendable": restored.sendable, "doubtful": restored.doubtful,
            "config_hash": context.config_hash,
        }  # fmt: skip
        audit.append(connection, now_ms=now_ms, actor=by, action="restore", subject=SUBJECT, detail=detail)
    if context.kill is not None:
        context.kill.tell(halt, changed)
    context.record.event("journal_restored", level="warning", by=by, reason=reason, epoch=restored.epoch)
    return restored
