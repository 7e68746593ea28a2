"""Whether the kill switch may be released: a clean reconcile, and no source that still says stop."""

from collections.abc import Iterator, Sequence

from app.clock import SystemClock
from app.composition import compose, kill_file, kill_sources_here
from app.control.kill import Control
from app.execution import drill
from app.execution.kill_status import unsettled
from app.execution.strays import stray_orders
from app.job_safety.kill_switch import KillSource, KillState
from app.settings import TradingMode
from app.wiring import open_installation

SHOWN = 5


def refusals(one: Control, sources: Sequence[KillSource]) -> list[str]:
    """Return why the latches of `sources` may not be released now; empty: they may.

    Raises:
        ExchangeQueryError: the exchange did not tell which orders of ours are open.
        StoreUnavailableError: a store does not answer.
    """
    return [*_sources(one, sources), *_unsettled(one), *_strays(one)]


def _sources(one: Control, sources: Sequence[KillSource]) -> Iterator[str]:
    _, is_readable = one.read_key()
    if not is_readable:
        yield f"Redis cannot be read ({one.redis_error}): what it says is not known"
    here = kill_sources_here(one.settings)()
    if KillSource.FILE in sources and here[KillSource.FILE] is not KillState.RUN:
        yield f"the file is still there: remove {kill_file(one.settings)}"
    if KillSource.ENVIRONMENT in sources and here[KillSource.ENVIRONMENT] is not KillState.RUN:
        yield "FILLONCE_KILL_SWITCH (or kill_switch.state in config.yaml) still says so"
    if KillSource.DRILL in sources and not drill.end_if_overdue(one.switch):
        yield "a drill ends by itself"


def _unsettled(one: Control) -> Iterator[str]:
    with one.journal.read() as connection:
        found = unsettled(connection)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield f"{', '.join(found[:SHOWN])}{more}: wait for reconcile, or `fillonce intents resolve`"


def _strays(one: Control) -> Iterator[str]:
    if one.settings.mode is TradingMode.DRY_RUN:
        return  # nothing was ever sent
    installation = open_installation(one.settings, SystemClock())
    try:
        found = stray_orders(compose(installation, "kill-switch-off"))
    finally:
        installation.redis.close()
        installation.journal.close()
    if found:
        ids = ", ".join(str(order_id) for order_id in found[:SHOWN])
        yield f"orders of ours are open at the exchange and unknown to the journal: {ids}; cancel them there"
