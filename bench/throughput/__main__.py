"""Jobs per second, ours beside others, interleaved: A B C A B C …; what counts are the ratios within a round.

`python -m bench.throughput` (or `make bench`) takes ten minutes at most and writes JSON and plots into bench/results/;
with `--publish` also the tables and plots of docs/explanation/performance.md. Linux only.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import machine, output
from bench.peers import venv
from bench.throughput.measure import measure
from bench.throughput.plan import Sizes, chosen
from bench.throughput.report import Table, tables
from bench.throughput.results import Results, plain

PAGE: Final = output.EXPLANATION / "performance.md"
IMAGES: Final = output.EXPLANATION / "images"
STOPPING_S: Final = 30
"""Kept back for stopping everybody and for the plots."""


def main() -> int:
    """Measure and print the tables; exit 1 if somebody could not be measured."""
    began_s = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=10, help="for everything; no round begins that would end later"
    )
    parser.add_argument("--rounds", type=int, default=7, help="at most")
    parser.add_argument("--jobs", type=int, default=500, help="jobs per run")
    parser.add_argument("--only", default="", help="letters of the contestants, such as ag")
    parser.add_argument("--workers", default="", help="1, 2, or 0 for enqueueing alone; such as 12")
    parser.add_argument("--publish", action="store_true", help="write the tables and plots into the documentation")
    asked = parser.parse_args()
    if asked.publish and (asked.only or asked.workers):
        parser.error("--publish: publishes everything; leave out --only and --workers")
    entries = chosen(asked.only, asked.workers)
    python = venv.ensure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that whatever was started is stopped
    facts = machine.facts()  # before the run: of the load, what is not ours
    with tempfile.TemporaryDirectory(prefix="throughput-") as home:
        until_s = began_s + asked.minutes * 60 - STOPPING_S
        results = measure(entries, Sizes(jobs=asked.jobs), Path(home), rounds=asked.rounds, until_s=until_s)
    facts |= results.facts | {"peers": ", ".join(venv.PINNED)}
    path = output.write_json("throughput", {"machine": facts, "jobs": asked.jobs, "results": plain(results)})
    images = IMAGES if asked.publish else path.parent
    drawn = subprocess.run(
        [str(python), "-m", "bench.throughput.plot", str(path), str(images)], cwd=output.ROOT, check=False
    )
    made = tables(entries, results)
    lines = [line for title, head, rows in made for line in ("", title, *output.plain(head, rows))]
    failed = [f"failed: {name}: {why}" for name, why in results.failed.items()]
    sys.stdout.write(
        "\n".join([*lines[1:], "", *machine.lines(facts), *failed, f"written: {path.relative_to(output.ROOT)}\n"])
    )
    if asked.publish:
        output.write_page("bench", _published(made, results, facts, time.monotonic() - began_s), PAGE)
    return 1 if failed or drawn.returncode else 0


def _published(made: Sequence[Table], results: Results, facts: dict[str, str], took_s: float) -> list[str]:
    rounds = max((len(each) for each in results.runs.values()), default=0)
    lines = []
    for title, head, rows in made:
        lines += [f"### {title}", "", *output.markdown(head, rows), ""]
    for name, says in (("ratios", "Jobs per second in those of RQ's SimpleWorker"), ("delays", "Enqueue to exchange")):
        lines += [f"![{says}](images/bench-{name}.png)", ""]
    day, minutes = time.strftime("%Y-%m-%d", time.gmtime()), took_s / 60
    lines += [f"Measured on {day} by `make bench` in {rounds} rounds, in {minutes:.1f} minutes, on", ""]
    return lines + machine.lines(facts)


if __name__ == "__main__":
    sys.exit(main())
