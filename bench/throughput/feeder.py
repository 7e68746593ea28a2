"""Enqueues into the peer that is named what it is told, a JSON object a line; answers each with a line.

`python -m bench.throughput.feeder PEER` runs in the peer's own virtual environment for as long as the bench does, so
that no run waits for an interpreter to start.
"""

import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any


def main(peer: Any) -> None:
    """Answer until the input ends."""
    actions = {"fill": _fill, "singly": _singly, "paced": _paced}
    for line in sys.stdin:
        asked = json.loads(line)
        names = [f"order-{number}" for number in range(asked["first"], asked["first"] + asked["count"])]
        sys.stdout.write(json.dumps(actions[asked["do"]](peer, names, asked["per_s"])) + "\n")
        sys.stdout.flush()


def _fill(peer: Any, names: Sequence[str], _per_s: float) -> float:
    """Enqueue in batches; return the seconds that it took."""
    started_s = time.perf_counter()
    peer.fill(names)
    return time.perf_counter() - started_s


def _singly(peer: Any, names: Sequence[str], _per_s: float) -> float:
    """Enqueue one by one; return the seconds that it took."""
    started_s = time.perf_counter()
    for name in names:
        peer.one(name)
    return time.perf_counter() - started_s


def _paced(peer: Any, names: Sequence[str], per_s: float) -> list[tuple[str, float, float]]:
    """Enqueue so many a second; return the id at the exchange and when each call began and ended (monotonic)."""
    known_as = getattr(peer, "known_as", str)
    told, due_s = [], time.monotonic()
    for name in names:
        due_s += 1 / per_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        began_s = time.monotonic()
        peer.one(name)
        told.append((known_as(name), began_s, time.monotonic()))
    return told


if __name__ == "__main__":
    main(import_module(f"bench.throughput.on_{sys.argv[1]}"))
