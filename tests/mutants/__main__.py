"""Prove that the tests can fail: `python -m tests.mutants`, or `make mutants`.

Each mutant is made in a copy of the project and has to turn the tests red. The table goes to stdout, progress to
stderr. Exit 1 if a mutant survives or the unchanged code is red, 2 if one does not fit the code or cannot be run.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Mutant, StaleMutantError
from tests.mutants.run import BrokenRunError, Tree, refuse_bugs
from tests.mutants.table import Caught, render

ROOT = Path(__file__).resolve().parents[2]
SEARCH = ("tests/safety/test_protocol_simulation.py", "-k", "not virtual_redis", "-x")
JOBS_MAX = 2


@dataclass(slots=True)
class Bench:
    """Runs mutants, each in a copy of the project below `folder`.

    They are all copied from `unchanged`, a copy itself: who goes on working meanwhile changes nothing.
    """

    folder: Path
    unchanged: Tree
    limit_s: float
    with_search: bool
    _told: threading.Lock = field(default_factory=threading.Lock)

    def baseline(self, mutants: Sequence[Mutant]) -> list[str]:
        """Run every test that a mutant may be judged by on the unchanged code; return those that are red."""
        tree = self.unchanged
        tree.check()
        wanted = sorted({test for mutant in mutants for test in mutant.tests})
        red = [*tree.test(wanted, limit_s=3 * self.limit_s).failed] if wanted else []
        if self.with_search:
            red += tree.test(SEARCH, limit_s=self.limit_s, test_limit_s=round(self.limit_s)).failed
        return red

    def try_out(self, mutant: Mutant) -> Caught | BrokenRunError:
        """Run the tests on one mutant."""
        began = time.monotonic()
        try:
            caught = self._judge(mutant)
        except BrokenRunError as error:
            self._tell(f"{mutant.name}: NOT JUDGED: {error}")
            return error
        took_s = time.monotonic() - began
        verdict = "caught" if caught.is_caught else "SURVIVED"
        by = f"by {len(caught.tests)} tests" + (" and the search" if caught.by_search else "")
        self._tell(f"{mutant.name}: {verdict} {by if caught.is_caught else ''} ({took_s:.0f} s)")
        return Caught(mutant=mutant, tests=caught.tests, by_search=caught.by_search, seconds=took_s)

    def _judge(self, mutant: Mutant) -> Caught:
        tree = self._tree(mutant.name)
        mutant.apply(tree.root)
        by_search: bool | None = None
        report = tree.test((*mutant.tests, "-k", mutant.expected), limit_s=self.limit_s)
        refuse_bugs(mutant, report)
        if self.with_search and mutant.is_searched:
            found = tree.test(SEARCH, limit_s=self.limit_s, test_limit_s=round(self.limit_s))
            refuse_bugs(mutant, found)
            by_search = bool(found.failed)
        if not report.failed and not by_search:
            report = tree.test(mutant.tests, limit_s=self.limit_s)
            refuse_bugs(mutant, report)
        return Caught(mutant=mutant, tests=tuple(report.failed), by_search=by_search, seconds=0)

    def _tree(self, name: str) -> Tree:
        return Tree(self.folder / name, self.unchanged.root)

    def _tell(self, line: str) -> None:
        with self._told:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def main() -> int:
    """Run the command."""
    told = _arguments().parse_args()
    chosen = [mutant for mutant in MUTANTS if not told.only or mutant.name in told.only]
    if unknown := set(told.only or ()) - {mutant.name for mutant in chosen}:
        sys.stderr.write(f"no such mutant: {', '.join(sorted(unknown))}; --list shows them\n")
        return 2
    if told.list:
        sys.stdout.write("".join(f"{mutant.name}: {mutant.breaks}\n" for mutant in chosen))
        return 0
    try:
        for mutant in chosen:
            mutant.texts(ROOT)
    except StaleMutantError as error:
        sys.stderr.write(f"{mutant.name} does not fit the code any more: {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="fillonce-mutants-") as folder:
        bench = Bench(
            folder=Path(folder), unchanged=Tree(Path(folder, "unchanged"), ROOT), limit_s=told.limit,
            with_search=not told.no_search,
        )  # fmt: skip
        return _run(bench, chosen, jobs=min(max(told.jobs, 1), JOBS_MAX))


def _run(bench: Bench, chosen: Sequence[Mutant], *, jobs: int) -> int:
    began = time.monotonic()
    sys.stderr.write("the unchanged code first\n")
    try:
        red = bench.baseline(chosen)
    except BrokenRunError as error:
        sys.stderr.write(f"the unchanged code cannot be judged: {error}\n")
        return 2
    if red:
        sys.stderr.write(f"red without any mutant: {', '.join(red)}\n")
        return 1
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = list(pool.map(bench.try_out, chosen))
    caught = [one for one in results if isinstance(one, Caught)]
    sys.stdout.write(render(caught))
    survivors = [one.mutant.name for one in caught if not one.is_caught]
    unjudged = len(results) - len(caught)
    sys.stderr.write(
        f"{len(caught) - len(survivors)} of {len(results)} mutants caught, {len(survivors)} survived, "
        f"{unjudged} could not be judged, in {(time.monotonic() - began) / 60:.0f} min\n"
    )
    if survivors:
        sys.stderr.write(f"survived: {', '.join(survivors)}. A test is missing.\n")
    return 1 if survivors else 2 if unjudged else 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Take one protection away at a time and see that the tests turn red.",
        epilog="example: python -m tests.mutants --only no_witness --no-search",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant alone; may be given again")
    parser.add_argument("--list", action="store_true", help="list the mutants and run nothing")
    parser.add_argument("--no-search", action="store_true", help="leave the random search out: faster")
    parser.add_argument("--jobs", type=int, default=JOBS_MAX, help=f"how many at a time, at most {JOBS_MAX}")
    parser.add_argument("--limit", type=float, default=600, metavar="S", help="longest time for one run of tests")
    return parser


if __name__ == "__main__":
    sys.exit(main())
