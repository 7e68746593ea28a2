"""What the stores of a run are, and what a write that waits for the disk takes here: it bounds whoever is durable."""

import os
import statistics
import time
from pathlib import Path

from app.embedded.redis_server import RedisEndpoint
from app.journal.engine import sqlite_module
from bench.postgres import PostgresServer

WRITES = 50
RESTED_WRITES = 20
REST_S = 0.05
"""As long as the idle system of the delays rests between two orders."""
BLOCK = b"x" * 4096


def stores(redis: RedisEndpoint | None, server: PostgresServer | None) -> str:
    """Return the names and versions of the stores."""
    told = [f"SQLite {sqlite_module().sqlite_version}"]
    if redis is not None:
        told.insert(0, f"{redis.flavour} {redis.version}")
    if server is not None:
        told.append(f"PostgreSQL {server.ask('SHOW server_version')}")
    return ", ".join(told)


def synced_writes(folder: Path) -> dict[str, str]:
    """Return how long a write of 4 KiB and its sync take in this folder, at the median: in a row, and from rest."""
    return {
        "a synced write of 4 KiB": _synced_write(folder, WRITES, rest_s=0),
        f"the same on an idle machine, {1 / REST_S:g} a second": _synced_write(folder, RESTED_WRITES, rest_s=REST_S),
    }


def _synced_write(folder: Path, writes: int, *, rest_s: float) -> str:
    took_s = []
    path = folder / "synced"
    with path.open("wb", buffering=0) as file:
        for _ in range(writes):
            time.sleep(rest_s)
            began_s = time.perf_counter()
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began_s)
    path.unlink()
    return f"{statistics.median(took_s) * 1000:.2f} ms"
