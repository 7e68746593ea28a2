"""Runs the workers of one process: one on its queue, or several of them side by side."""

import argparse
import signal
import sys
from collections.abc import Sequence

from app.composition import open_here
from app.delivery import QUEUES
from app.settings import MOST_THREADS
from app.wiring import Installation
from workers.identity import new_owner
from workers.quiet import quiet_rq
from workers.shared import run_shared, side_by_side
from workers.worker import SafetyWorker


def run_workers(
    queue: str, *, process: str, threads: int = 1, burst: bool = False, installation: Installation | None = None
) -> int:
    """Run `threads` workers on one queue until told to stop; return the exit code.

    A single one has the name `process`, several have those of `names_of`.
    """
    installation = installation or open_here()
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
    parser = argparse.ArgumentParser(prog="python -m workers.run", description="Run one worker on one queue.")
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("--burst", action="store_true", help="stop when the queue is empty")
    parser.add_argument("--threads", type=int, default=1, choices=range(1, MOST_THREADS + 1))
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return run_workers(parsed.queue, process=new_owner(parsed.queue), threads=parsed.threads, burst=parsed.burst)


if __name__ == "__main__":
    sys.exit(main())
