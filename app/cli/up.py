"""`fillonce up`: the whole system on this machine until Ctrl-C."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def up(
    *,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=100, help="Worker processes on the queue `orders`.")
    ] = None,
    speed: Annotated[str, typer.Option("--speed", help="Candles per second of the local exchange; 0: still.")] = "1",
) -> None:
    """Run everything here: private Redis, local exchange (mode paper), workers, sweeper and reconciler.

    Ctrl-C lets running work finish and stops all of it; twice stops now.

    Example:
      fillonce up --workers 2
    """
    import fcntl  # lazy: --help needs nothing of this
    import signal
    import threading

    from app.cli.exit_codes import FAILED
    from app.cli.local_system import LocalSystem
    from app.cli.output import say
    from app.cli.own_settings import sane_settings, tell_where
    from app.clock import SystemClock
    from app.settings import TradingMode

    settings = sane_settings()
    tell_where(settings, needs_redis=True)
    _make_journal(settings)
    lock = (settings.stores.home / "up.lock").open("w") if settings.stores.home.is_dir() else None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"`fillonce up` runs here already: {settings.stores.home}")
        raise typer.Exit(FAILED) from None
    told = threading.Event()
    with LocalSystem(settings=settings, clock=SystemClock()) as system:

        def stop(_number: int, _frame: object) -> None:
            if told.is_set():
                system.hurry()
            told.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        system.start_stores()
        if settings.exchange.futures_url is None and settings.mode in {TradingMode.PAPER, TradingMode.DRY_RUN}:
            system.start_exchange(["--speed", speed])
        system.start_supervisor("" if workers is None else f"orders={workers}")
        say(f"mode {settings.mode.value}, account {settings.account}; {system.settings.exchange.futures_url}")
        _tell_where_to_look(settings)
        say("running; Ctrl-C stops")
        while not told.wait(0.5):
            for process, name in ((system.supervisor, "the supervisor"), (system.exchange, "the local exchange")):
                if process is not None and process.poll() is not None:
                    say(f"{name} ended with code {process.returncode}; stopping")
                    raise typer.Exit(1)
        say("stopping: running work finishes first")


def _make_journal(settings: "Settings") -> None:
    """Make the journal's tables in a child: what that takes would weigh on this process for as long as it waits."""
    import os  # lazy: --help needs nothing of this

    child = os.fork()
    if child == 0:
        from app.wiring import open_journal

        open_journal(settings).close()
        raise typer.Exit(0)  # or whatever `main` makes of what went wrong, words included
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        raise typer.Exit(code if code > 0 else 128 - code)


def _tell_where_to_look(settings: "Settings") -> None:
    from app.cli.output import say  # lazy: --help needs nothing of this

    told = settings.metrics
    if told.enabled and told.port:
        say(f"how it stands: http://{told.host}:{told.port}/status")
