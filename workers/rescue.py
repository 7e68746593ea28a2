"""Go on at once with the work of a process that is known to be dead. Costs no retry; doing it twice does no harm."""

import contextlib
from collections.abc import Sequence

from app.composition import guard_names, open_here
from app.delivery import Parcel
from app.execution.parcels import parcel_of
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.state import TERMINAL_STATES
from app.journal import attempts, intents
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.wiring import Installation
from workers.identity import new_owner
from workers.side import make_guard


def rescue(installation: Installation, owner: str) -> list[str]:
    """Take what `owner` was doing away from it and deliver it again; return the keys.

    Raises:
        StoreUnavailableError: a store did not answer; the sweeper will find the rest.
    """
    burial = installation.delivery.bury_worker(owner)
    with installation.journal.read() as connection:
        keys = [key for who, key in attempts.open_by_owner(connection) if who == owner]
        rows = [intents.load(connection, key) for key in dict.fromkeys(keys)]
    parcels = _distinct([*burial.parcels, *(parcel_of(row) for row in rows if row.state not in TERMINAL_STATES)])
    if not parcels:
        return []
    guard = make_guard(installation, guard_names(installation.settings))
    for parcel in parcels:
        guard.bury(parcel.type, parcel.key, owner)
    # Only what it had begun with can be what it died of; the rest waited its turn.
    begun = [parcel.key for parcel in parcels if installation.delivery.was_begun_by_the_dead(parcel)]
    with installation.journal.write() as connection:
        if burial.is_first:  # two may be at it, and it died once
            intents.count_deaths(connection, begun)
        deaths = {key: row.rescues for key in begun if (row := intents.find(connection, key)) is not None}
    # What keeps killing is left to the sweeper, which takes its time, and quarantines it.
    limit = installation.settings.sweep.max_rescues
    parcels = [parcel for parcel in parcels if deaths.get(parcel.key, 0) <= limit]
    installation.delivery.deliver(parcels, front=True)
    return [parcel.key for parcel in parcels]


def _distinct(parcels: Sequence[Parcel]) -> list[Parcel]:
    return list({(parcel.type, parcel.key): parcel for parcel in parcels}.values())


def run_rescue(owner: str) -> int:
    """Rescue in a process of its own, started by the supervisor; return the exit code."""
    try:
        installation = open_here()
    except StoreUnavailableError as error:
        make_logger(owner="rescue").warning("rescue_failed", dead=owner, error=str(error))
        return 3
    log = make_logger(owner="rescue", mode=installation.mode, account=installation.account)
    record = Recorder(
        log, installation.redis, installation.clock, mode=installation.mode, account=installation.account,
        is_counting=installation.settings.metrics.enabled,
    )  # fmt: skip
    try:
        rescue_and_tell(installation, record, owner)
    except StoreUnavailableError as error:
        record.event("rescue_failed", level="warning", count=False, dead=owner, error=str(error))
        return 3
    record.close()
    return 0


def rescue_and_tell(installation: Installation, record: Recorder, owner: str) -> None:
    """Rescue what `owner` was doing, and leave a trace of each key.

    Raises:
        StoreUnavailableError: as `rescue` does.
    """
    for key in rescue(installation, owner):
        record.event("rescued", key=key, dead=owner)


class WarmRescuer:
    """Rescues in a process that runs already."""

    def __init__(self, installation: Installation, record: Recorder) -> None:
        self._installation = installation
        self._record = record

    def warm_up(self) -> None:
        """Load, compile and connect what a rescue needs, by one of nobody's work."""
        with contextlib.suppress(StoreUnavailableError):  # then the first real one takes longer
            rescue(self._installation, new_owner("nobody"))

    def __call__(self, owner: str) -> bool:
        """Rescue what `owner` was doing; return whether that could be done. What fails is told."""
        try:
            rescue_and_tell(self._installation, self._record, owner)
        except Exception as error:  # noqa: BLE001 - told; the supervisor tries again in a process of its own, which may break
            words = f"{type(error).__name__}: {error}"
            self._record.event("rescue_handed_back", level="warning", count=False, dead=owner, error=words)
            return False
        return True
