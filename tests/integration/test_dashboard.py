"""rq-dashboard on our jobs, as `fillonce dashboard` serves it: it shows what people look for, and changes nothing."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer, die_with_parent, free_port
from tests.support.system import System, system
from workers.dashboard import CHANGING

ROOT = Path(__file__).resolve().parents[2]
SENDING = {"method": "POST", "path": "/fapi/v1/order"}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """Asks the dashboard as a browser does."""

    port: int

    def ask(self, path: str, *, method: str = "GET", host: str = "") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if host:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@pytest.fixture
def browser(here: System) -> Iterator[Browser]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "dashboard", "--port", str(port)], cwd=here.folder,
        env={**os.environ, **here.environment, "PYTHONPATH": str(ROOT)}, preexec_fn=die_with_parent(),  # noqa: PLW1509
    )  # fmt: skip
    one = Browser(port=port)
    try:
        here.until(lambda: one.ask("/")[0] == 200, "the dashboard to answer")
        yield one
    finally:
        process.kill()
        process.wait()


def test_a_busy_worker_and_its_job_are_shown_in_words(here: System, browser: Browser) -> None:
    """rq-dashboard by itself unpickles the job in hand, which is JSON, and answers 500."""
    here.exchange.faults({"action": "delay_reply_ms", "ms": 2500, "match": SENDING})
    here.start("worker", "orders")
    here.order("looked-at")
    here.wait_for_state("looked-at", "DISPATCHED")
    status, text = browser.ask("/0/data/workers.json")
    assert status == 200, text
    (worker,) = json.loads(text)["workers"]
    assert worker["state"] == "busy"
    assert worker["current_job"]["description"] == "order BTCUSDT BUY 0.01 MARKET usdm · looked-at"
    assert worker["current_job"]["call_string"] == worker["current_job"]["description"], "what the page shows"


def test_a_job_that_waits_says_symbol_side_quantity_and_key(here: System, browser: Browser) -> None:
    here.order("waiting", symbol="ETHUSDT", side="SELL", quantity="0.500")
    status, text = browser.ask("/0/data/jobs/orders/queued/8/asc/1.json")
    assert status == 200, text
    (job,) = json.loads(text)["jobs"]
    assert job["description"] == "order ETHUSDT SELL 0.5 MARKET usdm · waiting"
    assert browser.ask("/0/data/queues.json")[0] == 200
    assert browser.ask(f"/0/data/job/{job['id']}.json")[0] == 200


def test_nothing_can_be_changed_from_it(here: System, browser: Browser) -> None:
    from rq_dashboard.web import blueprint  # lazy: the dashboard is an extra

    assert blueprint.name == "rq_dashboard"
    here.order("stays")
    (job,) = json.loads(browser.ask("/0/data/jobs/orders/queued/8/asc/1.json")[1])["jobs"]
    assert browser.ask("/requeue/orders")[0] == 405
    for path in (f"/job/{job['id']}/delete", f"/job/{job['id']}/requeue", "/queue/orders/queued/empty"):
        assert browser.ask(path, method="POST")[0] == 405
    assert here.installation.delivery.depth("orders") == 1


def test_a_page_of_somebody_else_cannot_read_it(browser: Browser) -> None:
    assert browser.ask("/0/data/queues.json", host="attacker.example")[0] == 400


def test_every_view_that_changes_something_is_switched_off() -> None:
    """A view that a newer rq-dashboard adds is found here."""
    code = (
        "from workers.dashboard import make_app; app = make_app('redis://127.0.0.1:1/0');"
        "print(*sorted(r.endpoint.rpartition('.')[2] for r in app.url_map.iter_rules() if 'POST' in r.methods))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == sorted(CHANGING)


def test_nothing_is_unpickled_in_its_process(tmp_path: Path) -> None:
    """Whoever can write to Redis could run code here otherwise."""
    code = (
        "from workers.dashboard import make_app; make_app('redis://127.0.0.1:1/0');"
        "from rq.serializers import resolve_serializer; print(resolve_serializer().__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "JSONSerializer"
