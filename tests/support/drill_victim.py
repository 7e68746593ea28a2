"""A process that holds a drill of the kill switch and dies in it, as if by `kill -9`: `drill_victim POINT TIMES`."""

import os
import signal
import sys
from dataclasses import dataclass, field, replace

from app.clock import SystemClock
from app.composition import compose, open_here
from app.execution import drill
from app.job_safety.faults import FaultPoint, Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly(Faults):
    """Kills its process when it comes by `deadly` for the `times`th time."""

    deadly: FaultPoint
    times: int
    seen: list[FaultPoint] = field(default_factory=list)

    def hit(self, point: FaultPoint) -> None:
        if point == self.deadly:
            self.seen.append(point)
            if len(self.seen) == self.times:
                os.kill(os.getpid(), signal.SIGKILL)


LASTS_MS = 3_000
"""For how long its drill may last: the keeper waits for that, and takes it for dead then."""


def main() -> None:
    drill.LASTS_MS = LASTS_MS  # type: ignore[misc]  # fixed in a system that runs; here the wait is not what is tested
    context = compose(open_here(SystemClock()), "victim")
    assert context.kill is not None
    faults = Deadly(deadly=FaultPoint(sys.argv[1]), times=int(sys.argv[2]))
    drill.hold(replace(context, faults=faults), context.kill, by="anna", reason="test")
