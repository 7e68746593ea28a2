"""One hash for one configuration, whoever names it: the command line beside `fillonce up`, its exporter, a worker."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.clock import SystemClock
from app.embedded.redis_server import stop_redis
from tests.support.redis_server import free_port

ROOT = Path(__file__).parents[2]
START_S = 120


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[dict[str, str]]:
    """`fillonce up` runs; yields the environment of a second terminal."""
    home = tmp_path / "home"
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "FILLONCE_HOME": str(home),
        "METRICS_PORT": str(free_port()),
    }  # fmt: skip
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "app", "up", "--workers", "1", "--speed", "0"]
        up = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while "exporter_listens" not in log.read_text():
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield environment
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
        stop_redis(home, SystemClock())


def fillonce(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "app", *arguments]
    cwd = environment["HOME"]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def test_hash_is_one_beside_the_whole_system(beside: dict[str, str]) -> None:
    hash_ = fillonce(beside, "config", "hash").strip()
    assert len(hash_) == 64
    with urllib.request.urlopen(f"http://127.0.0.1:{beside['METRICS_PORT']}/status", timeout=60) as answer:
        exporter: dict[str, Any] = json.loads(answer.read())
    status: dict[str, Any] = json.loads(fillonce(beside, "status", "--json"))
    assert (exporter["config_hash"], status["config_hash"]) == (hash_[:16], hash_[:16])
    assert f"settings {hash_[:16]}" in fillonce(beside, "status")
    order = ("--key", "hashed", "--symbol", "BTCUSDT", "--side", "BUY", "--type", "MARKET", "--quantity", "0.010")
    assert json.loads(fillonce(beside, "enqueue", "order", *order))["status"] == "accepted"
    fillonce(beside, "intents", "wait", "hashed", "--timeout", "60s")
    (attempt,) = json.loads(fillonce(beside, "intents", "show", "hashed", "--json"))["dispatches"]
    assert attempt["config_hash"] == hash_, "of the worker that sent it"
