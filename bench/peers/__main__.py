"""Kill workers of other job queues and of ours while orders are on the wire; count what is executed twice or never.

`python -m bench.peers` (or `make peers`) measures everybody one after the other, in ten minutes at most, writes JSON
into bench/results/ and the table into docs/explanation/peers.md. Linux only.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench import machine, output
from bench.ours import Ours
from bench.peers import venv
from bench.peers.peer import KINDS, Peer
from bench.peers.plan import HEAD, Contestant, Plan, Row
from bench.peers.run import run

LIMIT_S: Final = 570
"""For everything but the installation of the peers: ten minutes in all."""


def main() -> int:
    """Run the comparison; exit 1 unless ours is clean."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the kills' schedule")
    parser.add_argument("--only", default="", help="those whose name contains this; writes no page")
    parser.add_argument("--keep", action="store_true", help="keep the data and logs of the run, and say where")
    asked = parser.parse_args()
    plan = Plan(orders=asked.orders, kills=asked.kills, seed=asked.seed)
    python = venv.ensure()
    facts = machine.facts() | {"peers": ", ".join(venv.PINNED)}
    home = Path(tempfile.mkdtemp(prefix="peers-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that whatever was started is stopped
    rows = _measure(plan, home, python, asked.only)
    result = {"plan": asdict(plan), "machine": facts, "rows": [asdict(row) for row in rows]}
    path = output.write_json("peers", result)
    table = [row.cells() for row in rows]
    sys.stdout.write(
        "\n".join([*output.plain(HEAD, table), *_notes(rows), f"written: {path.relative_to(output.ROOT)}\n"])
    )
    if not asked.only and len(rows) > len(KINDS):
        output.write_page("peers", [*output.markdown(HEAD, table), "", *_told(plan, facts, rows)])
    if asked.keep:
        sys.stdout.write(f"kept: {home}\n")
    else:
        shutil.rmtree(home)
    ours = [row for row in rows if row.name == "fillonce"]
    return 0 if all(not (row.duplicates or row.lost or row.stuck) for row in ours) else 1


def _measure(plan: Plan, home: Path, python: Path, only: str) -> list[Row]:
    makers: list[tuple[str, Callable[[], Contestant]]] = [("fillonce", lambda: Ours(home / "ours", plan.kill_at))]
    for number, kind in enumerate(KINDS):
        folder = home / str(number)
        title = f"{kind.name}, {kind.settings}, kill {kind.killed}"
        makers.append((title, lambda kind=kind, folder=folder: Peer(kind, python, folder, plan.kill_at)))  # type: ignore[misc]  # bound now
    until_s = time.monotonic() + LIMIT_S
    rows = []
    for title, make in makers:
        if only.lower() in title.lower() and time.monotonic() < until_s:
            sys.stderr.write(f"{title} ...\n")
            row = run(make(), plan, until_s=until_s)
            sys.stderr.write(f"  {' | '.join(row.cells())}   ({row.seconds} s)\n")
            rows.append(row)
    return rows


def _notes(rows: list[Row]) -> list[str]:
    return [f"{row.name}: {row.note}" for row in rows if row.note]


def _told(plan: Plan, facts: dict[str, str], rows: list[Row]) -> list[str]:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    command = f"python -m bench.peers --orders {plan.orders} --kills {plan.kills} --seed {plan.seed}"
    seconds = sum(row.seconds for row in rows)
    return [f"Measured on {day} by `{command}`, in {seconds} s, on", "", *machine.lines(facts)]


if __name__ == "__main__":
    sys.exit(main())
