"""`fillonce intents trace` of real orders: through real workers, one with its answer lost on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kill import run_cli
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import System, system

SENDING = {"method": "POST", "path": "/fapi/v1/order"}


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, redis_url: str, database_url: str, nursery: Nursery
) -> Iterator[System]:
    del redis_url
    with (
        PaperProcess(tmp_path / "exchange", "--price", "BTCUSDT=20000") as exchange,
        system(
            tmp_path / "system", redis=redis_server, database_url=database_url, exchange=exchange, nursery=nursery,
        ) as one,
    ):  # fmt: skip
        yield one


def traced(here: System, key: str, form: str) -> dict[str, Any]:
    words = here.cli("intents", "trace", key, form)
    found: dict[str, Any] = json.loads(next(line for line in words.splitlines() if line.startswith("{")))
    return found


def test_trace_of_an_order_whose_answer_was_lost_shows_where_its_time_went(here: System) -> None:
    here.exchange.faults({"action": "reply_after_execution", "canned": "503_unknown", "match": {**SENDING, "nth": 2}})
    here.order("well")
    here.start_all()
    here.wait_until_booked("well")
    here.order("lost")
    here.wait_until_booked("lost")
    names = {key: [span["name"] for span in traced(here, key, "--json")["spans"]] for key in ("well", "lost")}
    assert names["well"][:4] == ["order well", "waiting", "attempt 1", "request"]
    assert "doubt" not in names["well"]
    assert names["lost"][:5] == ["order lost", "waiting", "attempt 1", "request", "doubt"]
    for found in names.values():
        assert {"fetch_fills", "booking"} <= set(found)
        assert [name for name in found if name.startswith("fill ")] != []
    spans = traced(here, "lost", "--json")["spans"]
    assert all(span["end"] is not None and span["duration_ms"] >= 0 for span in spans)
    by_id = {span["span_id"]: span["name"] for span in spans}
    doubt = next(span for span in spans if span["name"] == "doubt")
    assert by_id[doubt["parent_id"]] == "attempt 1"
    exported = traced(here, "lost", "--otlp")["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["spanId"] for span in exported] == [span["span_id"] for span in spans]
    assert "doubt" in here.cli("intents", "trace", "lost")


def test_trace_of_an_intent_that_is_not_there_says_so(here: System) -> None:
    ended = run_cli(here, "intents", "trace", "nowhere")
    assert (ended.wait(), "Traceback" in ended.words()) == (2, False)
    assert "nowhere" in ended.words()
    both = run_cli(here, "intents", "trace", "nowhere", "--json", "--otlp")
    assert (both.wait(), "give one of them" in both.words()) == (2, True)
