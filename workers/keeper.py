"""Sweeper, reconciler, exporter and the watches in one process: mostly they sleep, and a process costs 60 MB."""

import os
import threading
import traceback

from app.composition import compose, open_here
from workers import ledger_watch, redis_watch
from workers.loop import Stop
from workers.reconciler import run_reconciler
from workers.sweeper import run_sweeper


def run_keeper(*, owner: str) -> int:
    """Run them until told to stop; return the exit code. If one breaks, the process ends and is started again."""
    stop = Stop.on_signals()
    _watch(stop, owner)

    def sweep() -> None:
        try:
            run_sweeper(owner=f"{owner}-sweeper", stop=stop)
        except BaseException:  # noqa: BLE001 - a thread that dies alone leaves a process that looks alive and sweeps nothing
            traceback.print_exc()
            os._exit(1)

    thread = threading.Thread(target=sweep, name="sweeper")
    thread.start()
    code = run_reconciler(owner=owner, stop=stop, with_exporter=True)
    stop.set()
    thread.join()
    return code


def _watch(stop: Stop, owner: str) -> None:
    installation = open_here()
    context = compose(installation, f"{owner}-watch")
    watch = redis_watch.RedisWatch(installation.redis, installation.settings, installation.clock, context.record)
    redis_watch.start(stop, watch, interval_s=installation.settings.redis_safety.interval_s)
    ledger_watch.start(stop, context, installation.redis)
