"""Go on at once with the work of a process that is known to be dead. Costs no retry; doing it twice does no harm."""

from collections.abc import Sequence

from sqlalchemy import update

from app.composition import guard_names, open_here
from app.delivery import Parcel
from app.execution.order import parcel_of
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.state import TERMINAL_STATES
from app.journal import attempts, intents, schema
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.wiring import Installation
from workers.side import make_guard


def rescue(installation: Installation, owner: str) -> list[str]:
    """Take what `owner` was doing away from it and deliver it again; return the keys.

    Raises:
        StoreUnavailableError: a store did not answer; the sweeper will find the rest.
    """
    stranded = installation.delivery.bury_worker(owner)
    with installation.journal.read() as connection:
        keys = [attempt.key for attempt in attempts.open_of_owner(connection, owner)]
        rows = [intents.load(connection, key) for key in dict.fromkeys(keys)]
    parcels = _distinct([*stranded, *(parcel_of(row) for row in rows if row.state not in TERMINAL_STATES)])
    if not parcels:
        return []
    guard = make_guard(installation, guard_names(installation.settings))
    for parcel in parcels:
        guard.bury(parcel.type, parcel.key, owner)
    _count(installation, [parcel.key for parcel in parcels])
    installation.delivery.deliver(parcels, front=True)
    return [parcel.key for parcel in parcels]


def _distinct(parcels: Sequence[Parcel]) -> list[Parcel]:
    return list({(parcel.type, parcel.key): parcel for parcel in parcels}.values())


def _count(installation: Installation, keys: Sequence[str]) -> None:
    table = schema.intents
    with installation.journal.write() as connection:
        connection.execute(
            update(table)
            .where(table.c.key.in_(list(keys)), table.c.state.not_in([state.value for state in TERMINAL_STATES]))
            .values(rescues=table.c.rescues + 1)
        )


def run_rescue(owner: str) -> int:
    """Rescue in a process of its own, started by the supervisor; return the exit code."""
    installation = open_here()
    log = make_logger(owner="rescue", mode=installation.mode, account=installation.account)
    record = Recorder(log, installation.redis, mode=installation.mode, account=installation.account)
    try:
        keys = rescue(installation, owner)
    except StoreUnavailableError as error:
        record.event("rescue_failed", level="warning", count=False, dead=owner, error=str(error))
        return 3
    for key in keys:
        record.event("rescued", key=key, dead=owner)
    return 0
