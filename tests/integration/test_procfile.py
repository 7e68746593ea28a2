"""The Procfile, run by a program that reads such files: honcho."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer, die_with_parent
from tests.support.system import System, system

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def here(tmp_path: Path, redis_server: RedisServer, redis_url: str, nursery: Nursery) -> Iterator[System]:
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=f"sqlite:///{tmp_path / 'journal.db'}",
            exchange=exchange, nursery=nursery,
        ) as one,
    ):  # fmt: skip
        yield one


def test_honcho_runs_the_procfile_until_it_is_told_to_stop(here: System) -> None:
    environment = {
        **os.environ, **here.environment, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "FILLONCE_CONFIG": str(here.folder / "config"),
    }  # fmt: skip
    log = here.folder / "honcho.log"
    with log.open("wb") as out:
        honcho = subprocess.Popen(
            [PROGRAMS / "honcho", "start"], cwd=ROOT, env=environment, stdout=out, stderr=out,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one libc call, prepared beforehand
        )  # fmt: skip
    try:
        here.order("by-honcho")
        here.wait_until_booked("by-honcho")
    finally:
        honcho.send_signal(signal.SIGTERM)
        assert honcho.wait(60) in {0, -signal.SIGTERM, 143}, log.read_text()[-2000:]
    said = log.read_text()
    assert '"event": "draining"' in said
    assert here.installation.redis.smembers("rq:workers") == set(), "its workers have ended in order"
