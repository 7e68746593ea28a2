"""How soon the order of a killed worker goes on: from SIGKILL to the moment when its reconcile begins.

`python -m bench.recovery` (or `make recovery`) runs the whole system against the local exchange, kills workers that
have an order on the wire, one at a time, and reads the times from the system's own log. Writes JSON into
bench/results/ and its table into docs/explanation/peers.md. Linux only.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import machine, output
from bench.ours import Ours
from bench.percentile import percentile

KILL_EVERY_S: Final = 2.5
"""So that a worker is not taken for one that dies young, whose restart waits: that would be another measurement."""

PACE_S: Final = 0.1
SETTLE_S: Final = 60
LEAST: Final = 30
HEAD: Final = ("from SIGKILL to", "kills", "p50", "p99", "max")
GOES_ON: Final = "reconcile begins"


def main() -> int:
    """Measure; exit 1 if an order was executed twice or never, or too few kills struck."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="worker processes for the orders")
    parser.add_argument("--keep", action="store_true", help="keep the data and logs of the run, and say where")
    asked = parser.parse_args()
    facts = machine.facts()
    home = Path(tempfile.mkdtemp(prefix="recovery-"))
    ours = Ours(home / "ours", workers=asked.workers)
    started_s = time.monotonic()
    try:
        ours.start()
        _kill(ours, asked.kills)
        row = ours.measure(round(time.monotonic() - started_s))
        times = _times(ours)
    finally:
        ours.stop()
    table = [_cells(name, values) for name, values in times.items()]
    verdict = f"{row.orders} orders, {row.duplicates} duplicates, {row.lost} lost, {row.stuck} stuck"
    path = output.write_json("recovery", {"machine": facts, "verdict": verdict, "seconds": times})
    sys.stdout.write("\n".join([*output.plain(HEAD, table), verdict, f"written: {path.relative_to(output.ROOT)}\n"]))
    is_whole = len(times[GOES_ON]) >= min(LEAST, asked.kills)
    if is_whole and asked.kills >= LEAST:
        told = f"`python -m bench.recovery --kills {asked.kills} --workers {asked.workers}`"
        day = time.strftime("%Y-%m-%d", time.gmtime())
        measured = [f"{verdict}. Measured on {day} by {told}, on", "", *machine.lines(facts)]
        output.write_page("recovery", [*output.markdown(HEAD, table), "", *measured])
    if asked.keep:
        sys.stdout.write(f"kept: {home}\n")
    else:
        shutil.rmtree(home)
    return 0 if is_whole and not (row.duplicates or row.lost or row.stuck) else 1


def _kill(ours: Ours, kills: int) -> None:
    number, due_s = 0, time.monotonic()
    asked = 0
    while len(ours.killed) < kills:
        number += 1
        ours.submit(number)
        if asked == len(ours.killed) and time.monotonic() >= due_s:
            ours.kill_next()
            asked += 1
            due_s = time.monotonic() + KILL_EVERY_S
        _tend(ours, time.monotonic() + PACE_S)
    # Later orders are the witnesses that settle what the last kills have left in doubt.
    deadline_s = time.monotonic() + SETTLE_S
    while ours.finished_count() < ours.orders and time.monotonic() < deadline_s:
        number += 1
        if number % 10 == 0:
            ours.submit(number)
        _tend(ours, time.monotonic() + PACE_S)


def _tend(ours: Ours, until_s: float) -> None:
    while time.monotonic() < until_s:
        ours.tend()
        time.sleep(0.003)


def _times(ours: Ours) -> dict[str, list[float]]:
    events = ours.first_events()
    doubted = events["in_doubt"]
    return {
        "its supervisor's rescue has delivered the intent again": [
            events["rescued"][key] - at for key, at in ours.killed.items() if key in events["rescued"]
        ],
        GOES_ON: [doubted[key] - at for key, at in ours.killed.items() if key in doubted],
    }


def _cells(name: str, values: Sequence[float]) -> list[str]:
    shown = (percentile(values, 50), percentile(values, 99), max(values, default=math.nan))
    return [name, str(len(values)), *(f"{value:.3f} s" for value in shown)]


if __name__ == "__main__":
    sys.exit(main())
