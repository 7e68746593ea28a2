"""Processes of the product as chaos runs start them: `workers.supervisor`, or one worker that is starved of disk.

Three things differ from production. The supervisor does not pause before it restarts a child that died young: here
every death is ours, and a pause would only make the run longer. With scaled-down horizons the pauses between two
questions about an order in doubt are scaled down too. And the wall clock can be set wrong through a file.
"""

import os
import resource
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.clock import SystemClock
from app.execution import reconcile
from workers import supervisor, worker

CLOCK_FILE = "CHAOS_CLOCK_FILE"
"""Names a file with the milliseconds by which this process' wall clock is wrong; read at every look at the clock.

Beside it stands, for every amount that a process has met, a file that says so: a clock that nobody looked at did not
strike.
"""

HURRY = "CHAOS_HURRY"
"""Set: ask about orders in doubt at a third of the usual pauses."""

FILE_LIMIT = "CHAOS_FILE_LIMIT"
"""Bytes beyond which this process can write into no file: what a full disk looks like from inside."""


def main() -> int:
    """Run the supervisor, or with a file limit one worker, under the conditions that the environment names."""
    if CLOCK_FILE in os.environ:
        set_clock_wrong(Path(os.environ[CLOCK_FILE]))
    if HURRY in os.environ:
        vars(reconcile)["STEPS_MS"] = (200, 400, 600)
        vars(reconcile)["WITNESS_MS"] = 600
    if FILE_LIMIT in os.environ:
        limit = int(os.environ[FILE_LIMIT])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return worker.main(sys.argv[1:])
    vars(supervisor)["RESTART_PAUSES_S"] = (0.0,)
    return supervisor.main(sys.argv[1:])


def set_clock_wrong(file: Path) -> None:
    """Shift what every `SystemClock` of this process and its children takes for now. Monotonic time goes on."""
    now, now_ms = SystemClock.now, SystemClock.now_ms
    met: set[int] = set()

    def offset_ms() -> int:
        offset = int(file.read_text() or "0")
        if offset not in met:
            met.add(offset)
            clock_mark(file, offset).touch()
        return offset

    def wrong_now(self: SystemClock) -> datetime:
        return now(self).astimezone(UTC) + timedelta(milliseconds=offset_ms())

    def wrong_now_ms(self: SystemClock) -> int:
        return now_ms(self) + offset_ms()

    SystemClock.now = wrong_now  # type: ignore[method-assign]
    SystemClock.now_ms = wrong_now_ms  # type: ignore[method-assign]


def clock_mark(file: Path, offset_ms: int) -> Path:
    """Return the file that is there once a process has seen a clock that is wrong by this much."""
    return file.with_name(f"{file.name}-met-{offset_ms}")
