"""What one seed of the campaign is made of. Each part has a place of its own, so that parts may run side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import plans
from tests.chaos.faults import Mode
from tests.chaos.plans import PERSISTENCE, Place
from tests.chaos.runner import Result
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer

MODES_AT_ONCE = 8
"""More bad answers in a row hold the circuit open for longer than what is to be banned stays valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One part of one seed."""

    part: str
    seed: int
    modes: Sequence[Mode]
    strikes: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.seed}-{self.part}"

    @property
    def persistence(self) -> str:
        """Each seed has Redis keep what it is told in another way."""
        return [*PERSISTENCE][self.seed % len(PERSISTENCE)]


def _storm(place: Place, task: Task, weights: Mapping[plans.Strike, int], count: int, **more: object) -> Result:
    return plans.run_storm(place, weights, name=task.name, seed=task.seed, count=count, **more)


RUNS: Mapping[str, Callable[[Place, Task], Result]] = {
    "recovery": lambda place, task: plans.run_recovery(place, name=task.name, times=24),
    "matrix": lambda place, task: plans.run_matrix(place, [[mode] for mode in task.modes], name=task.name),
    "everything": lambda place, task: _storm(
        place, task, plans.EVERYTHING, task.strikes, lock_s=10 if task.seed == 1 else plans.OUTAGE_S
    ),
    "zombies": lambda place, task: plans.run_zombies(place, plans.POINTS, name=task.name),
    "kills": lambda place, task: _storm(place, task, plans.KILLS_ONLY, task.strikes * 3 // 2),
    "redis": lambda place, task: _storm(
        place, task, plans.REDIS, task.strikes // 2, persistence=task.persistence,
        outage_s=30 if task.seed == 0 else plans.OUTAGE_S,
    ),
    "postgres": lambda place, task: _storm(place, task, plans.POSTGRES, task.strikes // 2),
    "machines": lambda place, task: plans.run_machine_deaths(place, name=task.name, times=2),
    "sentinel": lambda place, task: _storm(place, task, plans.SENTINEL, task.strikes // 6),
    "duplicates": lambda place, task: plans.run_duplicates(place, name=task.name),
    "spot": lambda place, task: plans.run_matrix(
        place, [task.modes[start : start + MODES_AT_ONCE] for start in range(0, len(task.modes), MODES_AT_ONCE)],
        name=task.name, venues=["spot"],
    ),
    "cancels": lambda place, task: plans.run_cancels(place, name=task.name, times=3),
}  # fmt: skip
"""The longest first."""

ALONE = ("recovery",)
"""What measures runs while nothing else does."""


def run(task: Task, folder: Path) -> tuple[Result, float]:
    """Run one part; return what it has shown and the seconds that it took."""
    started = time.monotonic()
    home = folder / f"{task.name}-place"
    redis, nursery = RedisServer(home / "redis").start(), Nursery()
    try:
        return RUNS[task.part](Place(folder=home, redis=redis, nursery=nursery), task), time.monotonic() - started
    finally:
        nursery.close()
        redis.kill()
