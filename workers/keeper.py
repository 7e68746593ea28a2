"""Sweeper, reconciler, exporter, rescuer and the watches in one process: mostly they sleep, and one costs 60 MB."""

import os
import socket
import threading
import traceback

from app.composition import compose, open_here
from workers import ledger_watch, redis_watch, rescue_line
from workers.loop import Stop
from workers.reconciler import run_reconciler
from workers.rescue import WarmRescuer
from workers.sweeper import run_sweeper


def run_keeper(*, owner: str, line: int | None = None) -> int:
    """Run them until told to stop; return the exit code. If one breaks, the process ends and is started again.

    `line`: the descriptor of the keeper's end of the line on which the supervisor names the dead (`rescue_line`).
    """
    stop = Stop.on_signals()
    _watch(stop, owner, line)

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


def _watch(stop: Stop, owner: str, line: int | None) -> None:
    installation = open_here()
    context = compose(installation, f"{owner}-watch")
    watch = redis_watch.RedisWatch(installation.redis, installation.settings, installation.clock, context.record)
    redis_watch.start(stop, watch, interval_s=installation.settings.redis_safety.interval_s)
    ledger_watch.start(stop, context, installation.redis)
    if line is not None:
        rescuer = WarmRescuer(installation, context.record)
        rescue_line.listen(socket.socket(fileno=line), rescuer, warm_up=rescuer.warm_up)
