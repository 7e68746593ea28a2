"""DBOS on PostgreSQL, which its documentation asks for in production: a queue of workflows of one step each.

`python -m bench.throughput.on_dbos` is its worker. It takes all that waits at each look and runs it in threads, as it
does unless told otherwise; it looks ten times a second instead of once, so that a short run measures work, not waiting.
"""

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from dbos import DBOS, DBOSClient  # type: ignore[import-not-found]  # not among the project's requirements

from bench.throughput.job import place as _place

NAME: Final = "bench"
READY: Final = Path("dbos-ready")
LOOKS_EVERY_S: Final = 0.1


@DBOS.step()  # type: ignore[untyped-decorator]
def send(client_id: str) -> None:
    """Place one order; its outcome is kept."""
    _place(client_id)


@DBOS.workflow(name="place")  # type: ignore[untyped-decorator]
def place(client_id: str) -> None:
    """Place one order."""
    send(client_id)


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all, one by one: its client knows no batches."""
    for client_id in client_ids:
        _client().enqueue({"workflow_name": "place", "queue_name": NAME, "workflow_id": client_id}, client_id)


@cache
def _client() -> DBOSClient:
    return DBOSClient(system_database_url=os.environ["DATABASE_URL"], application_name=NAME)


def main() -> None:
    """Work until killed."""
    DBOS(config={"name": NAME, "system_database_url": os.environ["DATABASE_URL"], "log_level": "ERROR"})
    DBOS.launch()
    DBOS.register_queue(NAME, polling_interval_sec=LOOKS_EVERY_S)
    READY.touch()
    threading.Event().wait()


if __name__ == "__main__":
    main()
