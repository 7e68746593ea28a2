"""Runs the workers of one process: one on its queue, or several of them side by side."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Final

from app.composition import open_here
from app.delivery import QUEUES
from app.settings import MOST_THREADS
from app.wiring import Installation
from workers.identity import new_owner
from workers.quiet import quiet_rq
from workers.shared import run_shared, side_by_side
from workers.worker import SafetyWorker

BOOK_QUEUES: Final = ("positions", "ledger", "pnl", "signals")
"""Queues whose work waits for nobody: one thread does it all."""


def threads_on(queue: str, configured: int) -> int:
    """Return how many workers a process has on `queue`; `configured`: of those that talk to the exchange."""
    return 1 if queue in BOOK_QUEUES else configured


def run_workers(queue: str, *, process: str, installation: Installation, threads: int = 1, burst: bool = False) -> int:
    """Run `threads` workers on one queue until told to stop; return the exit code.

    A single one has the name `process`, several have those of `names_of`.
    """
    if threads > 1:
        return run_shared(side_by_side(process, queue, threads), burst=burst, installation=installation)
    with quiet_rq():
        SafetyWorker([queue], name=process, installation=installation).work(burst=burst)
    return 0


def names_of(process: str, *, queue: str, threads: int) -> list[str]:
    """Return the names under which `run_workers` works."""
    return [process] if threads == 1 else [place.name for place in side_by_side(process, queue, threads)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workers of one process from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.run", description="Work on one queue.")
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("--burst", action="store_true", help="stop when the queue is empty")
    parser.add_argument("--threads", type=int, choices=range(1, MOST_THREADS + 1), help="else as configured")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    here = open_here()
    threads = parsed.threads or threads_on(parsed.queue, here.settings.workers.threads)
    return run_workers(
        parsed.queue, process=new_owner(parsed.queue), threads=threads, burst=parsed.burst, installation=here
    )


if __name__ == "__main__":
    sys.exit(main())
