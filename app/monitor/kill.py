"""Every source of the kill switch as it stands now. A source that cannot be read stops what opens risk."""

from collections.abc import Mapping

from app.job_safety.kill_switch import KillState
from app.journal.meta import Meta

REDIS_KEY = "redis_key"
JOURNAL = "journal"


def sources(*, key: KillState | None, stamp: Meta | None) -> Mapping[str, KillState]:
    """Return what each source says: the Redis key, and the journal's latch. None: it could not be read."""
    return {
        REDIS_KEY: KillState.REDUCE_ONLY if key is None else key,
        JOURNAL: KillState.REDUCE_ONLY if stamp is None else KillState(stamp.kill_state),
    }
