"""Every source of the kill switch as it stands now. A source that cannot be read stops what opens risk."""

from collections.abc import Mapping

from app.execution.kill_status import UNREADABLE, Holding
from app.job_safety.kill_switch import KillSource, KillState
from app.journal.meta import Meta

JOURNAL = "journal"


def sources(*, key: KillState | None, stamp: Meta | None, here: Mapping[str, KillState]) -> Mapping[str, KillState]:
    """Return what each source says: the Redis key, file and environment, and the journal's latches together.

    None: it could not be read.
    """
    return {
        KillSource.REDIS_KEY.value: KillState.REDUCE_ONLY if key is None else key,
        **{str(name): state for name, state in here.items()},
        JOURNAL: KillState.REDUCE_ONLY if stamp is None else KillState(stamp.kill_state),
    }


def by_source(holding: Holding, *, journal_is_readable: bool) -> dict[str, KillState]:
    """Return how each source restricts, by the names of `fillonce kill-switch status`."""
    unread = {} if journal_is_readable else {JOURNAL: KillState.REDUCE_ONLY}
    return {**{source.value: state for source, state in holding.by_source().items()}, **unread}


def words(holding: Holding, *, journal_is_readable: bool) -> str:
    """Return who holds the switch, in the words of `fillonce kill-switch`."""
    unread = [] if journal_is_readable else [f"{JOURNAL} says {UNREADABLE}"]
    return "; ".join([*(holding.words(source) for source in holding.holders()), *unread])
