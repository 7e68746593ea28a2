"""What the stores of a run are, and what a write that waits for the disk takes here: it bounds whoever is durable."""

import os
import statistics
import time
from pathlib import Path

from app.embedded.redis_server import RedisEndpoint
from app.journal.engine import sqlite_module
from bench.postgres import PostgresServer

WRITES = 50
BLOCK = b"x" * 4096


def stores(redis: RedisEndpoint | None, server: PostgresServer | None) -> str:
    """Return the names and versions of the stores."""
    told = [f"SQLite {sqlite_module().sqlite_version}"]
    if redis is not None:
        told.insert(0, f"{redis.flavour} {redis.version}")
    if server is not None:
        told.append(f"PostgreSQL {server.ask('SHOW server_version')}")
    return ", ".join(told)


def synced_write(folder: Path) -> str:
    """Return how long a write of 4 KiB and its sync take in this folder, at the median."""
    took_s = []
    path = folder / "synced"
    with path.open("wb", buffering=0) as file:
        for _ in range(WRITES):
            began_s = time.perf_counter()
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began_s)
    path.unlink()
    return f"{statistics.median(took_s) * 1000:.2f} ms"
