"""The long form: `python -m tests.chaos.campaign --seeds 10`. Prints tables; exit 1 if anything is not as promised.

Together the seeds run the whole matrix, and each runs its own storms. A seed is repeated with `--only SEED`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import plans
from tests.chaos.faults import dealt
from tests.chaos.plans import Place
from tests.chaos.runner import Result
from tests.chaos.table import render
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer


def run_seed(place: Place, seed: int, seeds: int, *, strikes: int) -> Result:
    """Run what belongs to one seed."""
    runs: dict[str, Callable[[str], Result]] = {
        "matrix": lambda name: plans.run_matrix(place, [[mode] for mode in dealt(seed, seeds)], name=name),
        "spot": lambda name: plans.run_matrix(place, [dealt(seed, seeds)], name=name, venues=["spot"]),
        "recovery": lambda name: plans.run_recovery(place, name=name, times=12),
        "zombies": lambda name: plans.run_zombies(place, plans.POINTS, name=name),
        "kills": lambda name: plans.run_storm(place, plans.KILLS_ONLY, name=name, seed=seed, count=strikes),
        "redis": lambda name: plans.run_storm(
            place, plans.REDIS, name=name, seed=seed, count=strikes // 2, outage_s=30 if seed == 0 else 3,
            with_persistence=seed % 2 == 0,
        ),
        "postgres": lambda name: plans.run_storm(place, plans.POSTGRES, name=name, seed=seed, count=strikes // 2),
        "everything": lambda name: plans.run_storm(place, plans.EVERYTHING, name=name, seed=seed, count=strikes),
    }  # fmt: skip
    whole = Result()
    for kind, run in runs.items():
        started = time.monotonic()
        result = run(f"{seed}-{kind}")
        whole.add(result)
        words = "good" if result.is_good else f"NOT GOOD\n{result}"
        sys.stderr.write(f"seed {seed} {kind}: {time.monotonic() - started:.0f} s, {result.kills} kills: {words}\n")
    return whole


def main() -> int:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description="Break everything, for long.")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds; the matrix is dealt out among them")
    parser.add_argument("--only", type=int, help="run this seed alone")
    parser.add_argument("--strikes", type=int, default=40, help="strikes per storm")
    parser.add_argument("--keep", type=Path, help="folder for logs, journals and exchange histories")
    told = parser.parse_args()
    folder = told.keep or Path(tempfile.mkdtemp(prefix="fillonce-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"logs, journals and the exchange's histories: {folder}\n")
    redis, nursery = RedisServer(folder / "redis").start(), Nursery()
    try:
        place = Place(folder=folder, redis=redis, nursery=nursery)
        seeds = range(told.seeds) if told.only is None else [told.only]
        results = {f"seed {seed}": run_seed(place, seed, told.seeds, strikes=told.strikes) for seed in seeds}
    finally:
        nursery.close()
        redis.kill()
    sys.stdout.write(f"{render(results)}\n")
    return 0 if all(result.is_good for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
