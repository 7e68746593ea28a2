"""Jobs per second, ours beside others, interleaved: A B C A B C …; what counts are the ratios within a round.

`python -m bench.throughput` (or `make bench`) writes JSON into bench/results/. Linux only.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench import machine, output
from bench.peers import venv
from bench.throughput.contestants import KINDS, Contestant, Run

HEAD: Final = ("queue", "jobs/s", "x RQ SimpleWorker (min to max)", "CPU ms", "Redis commands", "Redis reads")


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=500, help="jobs per run")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--only", default="", help="letters of the contestants, such as ag")
    asked = parser.parse_args()
    venv.ensure()
    kinds = [kind for kind in KINDS if not asked.only or kind.letter in asked.only]
    facts, runs = machine.facts(), {kind.letter: list[Run]() for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="throughput-") as home:
        contestants = [Contestant(kind, Path(home) / kind.letter, asked.workers) for kind in kinds]
        try:
            for one in contestants:
                one.start()
            for number in range(asked.rounds):
                for one in contestants:
                    runs[one.kind.letter].append(one.measure(asked.jobs))
                sys.stderr.write(f"round {number + 1} of {asked.rounds}\n")
        finally:
            for one in contestants:
                one.stop()
    table = [[kind.name, *_cells(runs[kind.letter], runs.get("a", []))] for kind in kinds]
    told = {letter: [asdict(run) for run in each] for letter, each in runs.items()}
    path = output.write_json("throughput", {"machine": facts, "workers": asked.workers, "runs": told})
    sys.stdout.write("\n".join([*output.plain(HEAD, table), f"written: {path.relative_to(output.ROOT)}\n"]))
    return 0


def _cells(runs: list[Run], stock: list[Run]) -> list[str]:
    ratios = [run.jobs_per_s / base.jobs_per_s for run, base in zip(runs, stock, strict=False)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
    middle = {name: statistics.median(getattr(run, name) for run in runs) for name in Run.__dataclass_fields__}
    return [f"{middle['jobs_per_s']:.0f}", ratio, *(f"{middle[name]:.2f}" for name in list(middle)[1:])]


if __name__ == "__main__":
    sys.exit(main())
