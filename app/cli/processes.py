"""Commands that become another program of ours: the process is replaced, so that signals reach the right one."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated, Final, NoReturn

import typer

from app.cli.output import say

NO_EXCHANGE: Final = (
    "no exchange is named: set BINANCE_FUTURES_URL and BINANCE_SPOT_URL to what `fillonce paper-exchange` prints, "
    "or run everything by `fillonce up`"
)


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m module arguments`, with the same environment and folder."""
    # -P: a folder of the user's own called `workers` or `app` must not be taken for ours. Without an installation,
    # the current folder is where we were found.
    safe = ["-P"] if _is_installed() else []
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *safe, "-m", module, *arguments])  # noqa: S606 - no shell is meant


def worker(
    queue: Annotated[str, typer.Argument(help="urgent, orders, positions, ledger, pnl or signals.")],
    *,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queue is empty.")] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Workers side by side, up to 16. Otherwise as configured.")
    ] = None,
) -> None:
    """Run the workers of one process on a queue.

    Example:
      fillonce worker orders --threads 4
    """
    from app.delivery import QUEUES  # lazy: --help needs no rq
    from app.settings import MOST_THREADS  # lazy: nor settings

    if queue not in QUEUES:
        raise typer.BadParameter(f"{queue[:40]!r} is not a queue; use one of {', '.join(QUEUES)}", param_hint="QUEUE")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise typer.BadParameter(f"{threads} is not a number from 1 to {MOST_THREADS}", param_hint="--threads")
    _check_settings()
    wanted = [] if threads is None else ["--threads", str(threads)]
    become("workers.run", [queue, *wanted, *(["--burst"] if burst else [])])


def supervise(
    *,
    workers: Annotated[
        str | None, typer.Option("--workers", help="Worker processes per queue: orders=4,pnl=2. Others as configured.")
    ] = None,
) -> None:
    """Start, watch and restart workers, sweeper, reconciler and exporter, until Ctrl-C.

    Example:
      fillonce supervise --workers orders=4
    """
    if workers is not None:
        _check_counts(workers)
    _check_settings()
    become("workers.supervisor", [] if workers is None else ["--workers", workers])


def reconcile(*, once: Annotated[bool, typer.Option("--once", help="One round, then end.")] = False) -> None:
    """Ask the exchange what became of attempts in doubt, and settle them.

    Example:
      fillonce reconcile --once
    """
    _check_settings()
    become("workers.reconciler", ["--once"] if once else [])


def sweep(*, once: Annotated[bool, typer.Option("--once", help="One round, then end.")] = False) -> None:
    """Find intents that should be moving and are not, and deliver them again.

    Example:
      fillonce sweep --once
    """
    _check_settings()
    become("workers.sweeper", ["--once"] if once else [])


def dashboard(*, port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="On 127.0.0.1.")] = 9181) -> None:
    """Show queues, workers and jobs in a browser on this machine; nothing can be changed there.

    Needs rq-dashboard: pip install 'fillonce[dashboard]'.

    Example:
      fillonce dashboard --port 9181
    """
    from app.cli.own_settings import sane_settings, tell_where  # lazy: --help needs no settings

    tell_where(sane_settings(), needs_redis=True)
    become("workers.dashboard", ["--port", str(port)])


def exporter() -> None:
    """Serve /metrics, /status, /readyz and /healthz on METRICS_PORT until Ctrl-C; with a token, /kill-switch too.

    `fillonce up` and `fillonce supervise` do so already, unless METRICS_PORT is 0.

    Example:
      METRICS_PORT=9100 fillonce exporter
    """
    from app.cli.own_settings import sane_settings, tell_where  # lazy: --help needs no settings

    tell_where(sane_settings(), needs_redis=True)
    become("workers.exporter", [])


def _check_settings() -> None:
    from app.cli.own_settings import sane_settings, tell_where  # lazy: --help needs no settings
    from app.settings import SettingsError, TradingMode, with_local_exchange

    settings = with_local_exchange(sane_settings())
    if settings.mode is TradingMode.PAPER and None in {settings.exchange.futures_url, settings.exchange.spot_url}:
        raise SettingsError([NO_EXCHANGE])
    tell_where(settings, needs_redis=True)


def _check_counts(text: str) -> None:
    from app.delivery import QUEUES  # lazy: --help needs no rq

    for part in text.split(","):
        queue, _, count = part.partition("=")
        if queue not in QUEUES or not (count.isascii() and count.isdigit() and len(count) <= 4):
            known = ", ".join(QUEUES)
            raise typer.BadParameter(
                f"{part[:40]!r} is not QUEUE=COUNT, such as orders=4; queues are {known}", param_hint="--workers"
            )


def _is_installed() -> bool:
    try:
        distribution("fillonce")
    except PackageNotFoundError:
        say("fillonce is not installed here: its programs are looked for in the current folder")
        return False
    return True
