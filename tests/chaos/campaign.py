"""The long form: `python -m tests.chaos.campaign --seeds 10`. Prints tables; exit 1 if anything is not as promised.

Together the seeds run the whole matrix, and each runs its own storms. Parts of a seed run side by side, since each of
them waits most of the time; what measures runs alone. A seed is repeated with `--only SEED`, a part with `--part NAME`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.chaos.faults import dealt
from tests.chaos.parts import ALONE, RUNS, Task, run
from tests.chaos.runner import Result
from tests.chaos.table import render

LANES = 3


def run_seed(folder: Path, tasks: Sequence[Task], *, lanes: int) -> Result:
    """Run the parts of one seed, and tell of each when it is done."""
    whole = Result()
    for together in ([one for one in tasks if one.part in ALONE], [one for one in tasks if one.part not in ALONE]):
        # Processes of their own: what a part starts dies with it, and none waits for another's interpreter.
        with ProcessPoolExecutor(lanes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            running = {pool.submit(run, task, folder): task for task in together}
            for done in as_completed(running):
                result, seconds = _outcome(done)
                whole.add(result)
                words = "good" if result.is_good else f"NOT GOOD\n{result}"
                _tell(f"{running[done].name}: {seconds:.0f} s, {result.kills} kills: {words}")
    return whole


def main() -> int:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description="Break everything, for long.")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds; the matrix is dealt out among them")
    parser.add_argument("--only", type=int, help="run this seed alone")
    parser.add_argument("--part", choices=RUNS, action="append", help="run this part alone; may be repeated")
    parser.add_argument("--strikes", type=int, default=36, help="strikes of the longest storm of a seed")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many parts run side by side")
    parser.add_argument("--keep", type=Path, help="folder for logs, journals and exchange histories")
    told = parser.parse_args()
    folder = told.keep or Path(tempfile.mkdtemp(prefix="fillonce-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    _tell(f"logs, journals and the exchange's histories: {folder}")
    results = {}
    for seed in range(told.seeds) if told.only is None else [told.only]:
        started = time.monotonic()
        modes = dealt(seed, told.seeds)
        tasks = [Task(part=part, seed=seed, modes=modes, strikes=told.strikes) for part in told.part or RUNS]
        results[f"seed {seed}"] = run_seed(folder, tasks, lanes=told.lanes)
        _tell(f"seed {seed}: {time.monotonic() - started:.0f} s, {results[f'seed {seed}'].kills} kills")
    sys.stdout.write(f"{render(results)}\n")
    return 0 if all(result.is_good for result in results.values()) else 1


def _outcome(done: Future[tuple[Result, float]]) -> tuple[Result, float]:
    try:
        return done.result()
    except Exception as error:  # noqa: BLE001 - whatever broke a part is told at once, and the others go on
        broken = Result()
        broken.findings.other.append(f"broke off: {type(error).__name__}: {error}")
        return broken, 0.0


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
