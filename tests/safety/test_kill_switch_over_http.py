"""The kill switch over HTTP: it stops what the command stops, releases what the command would, and needs its token."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.monitor import kill_door
from app.settings import load_settings
from tests.support.http_kill import HALT, TOKEN, Client, Told, exporter
from tests.support.kill import KEY, WHO, audited, kill_file, latched, latches, run_cli, standing
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer, free_port
from tests.support.system import System, system
from workers.exporter import make_exporter, serving

RUN = {"state": "RUN", "reason": "the bot is mended", "by": "anna"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def here(tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    with installed(tmp_path, redis, nursery, f"sqlite:///{tmp_path / 'journal.db'}") as one:
        yield one


@pytest.fixture
def anywhere(database_url: str, tmp_path: Path, redis: RedisServer, nursery: Nursery) -> Iterator[System]:
    with installed(tmp_path, redis, nursery, database_url) as one:
        yield one


@contextlib.contextmanager
def installed(tmp_path: Path, redis: RedisServer, nursery: Nursery, url: str) -> Iterator[System]:
    redis.renew()
    with (
        PaperProcess(
            tmp_path / "exchange", "--price", "BTCUSDT=20000", "--deposit", "futures:USDT:1000000"
        ) as exchange,
        system(tmp_path / "system", redis=redis, database_url=url, exchange=exchange, nursery=nursery) as one,
    ):
        yield one


def orders(here: System) -> int:
    return len(here.exchange.truth()["orders"])


def left_in_doubt(here: System, key: str) -> None:
    """Have an order executed whose answer is lost."""
    here.exchange.faults(
        {"action": "answer_lost_after_execution", "match": {"method": "POST", "path": "/fapi/v1/order"}}
    )
    here.order(key, valid_for_s=300)
    here.run("worker", "orders", "--burst")
    here.exchange.faults()
    assert here.row(key).state == "IN_DOUBT"


# What it stops


def test_no_order_leaves_after_the_post_has_been_answered(anywhere: System) -> None:
    """Workers are busy when it comes: what they had sent is settled in the answer, and nothing comes after."""
    client = exporter(anywhere)
    anywhere.order("opens-the-books")
    anywhere.run("worker", "orders", "--burst")
    for number in range(60):
        anywhere.order(f"stream-{number}", valid_for_s=300)
    for _ in range(2):
        anywhere.start("worker", "orders")
    anywhere.until(lambda: orders(anywhere) > 2 or None, "orders to leave")
    answer = client.post(HALT)
    at_answer = orders(anywhere)
    assert answer.code == 200, answer.body
    assert (answer.body["state"], answer.body["is_done"], answer.body["not_settled"]) == ("HALT", True, [])
    assert (
        f"{answer.body['on_the_wire']} requests were on the wire; {answer.body['settled']} have settled"
        in (answer.body["words"])
    )
    anywhere.order("too-late", valid_for_s=300)
    assert anywhere.run("worker", "orders", "--burst") == 0
    assert anywhere.row("too-late").reason == "snoozed: kill_switch:halt:journal"
    assert orders(anywhere) == at_answer
    assert latched(anywhere) == "HALT"
    assert anywhere.installation.redis.get(KEY) == b"HALT"


def test_each_state_is_audited_with_who_why_and_whence_and_shown_as_the_command_shows_it(anywhere: System) -> None:
    client, who = exporter(anywhere), "anna over HTTP from 127.0.0.1"
    for asked, state in (("cancel-only", "CANCEL_ONLY"), ("on", "HALT"), ("reduce_only", "REDUCE_ONLY")):
        answer = client.post({"state": asked, "reason": f"for {asked}", "by": " anna "})
        assert (answer.code, answer.body["state"], answer.body["by"]) == (200, state, who), answer.body
        assert answer.body["words"][0].startswith(f"{state} since now: ")
        held = client.get().body["sources"]["operator"]
        assert (held["holds"], held["by"], held["reason"]) == (state, who, f"for {asked}")
    assert (
        client.post({"state": "REDUCE_ONLY", "reason": "again", "by": "bob"})
        .body["words"][0]
        .startswith("REDUCE_ONLY already: ")
    )
    shown = run_cli(anywhere, "kill-switch", "status").words()
    assert who in shown
    answer = client.post({**RUN, "state": "off"})
    assert (answer.code, answer.body["state"], answer.body["is_done"]) == (200, "RUN", True)
    assert answer.body["words"] == ["released: operator", "RUN: everything may leave"]
    assert audited(anywhere) == [
        (who, "operator", "RUN", "CANCEL_ONLY"),
        (who, "operator", "CANCEL_ONLY", "HALT"),
        (who, "operator", "HALT", "REDUCE_ONLY"),
        (who, "operator", "REDUCE_ONLY", "RUN"),
    ]
    assert run_cli(anywhere, "audit", "verify").wait() == 0


def test_answer_waits_for_what_is_on_the_wire_and_pages_are_served_meanwhile(
    anywhere: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ask than may wait: the one too many is answered at once, with what is not settled; the switch is thrown.

    The exporter runs in this process, so that it can be more patient than a busy machine is slow.
    """
    monkeypatch.setattr(kill_door, "SETTLE_S", 120.0)
    marker = anywhere.folder / "stopped"
    anywhere.order("on-the-wire", valid_for_s=300)
    worker = anywhere.start("worker", "orders", "--burst", faults=f"after_send=stop@{marker}")
    anywhere.until(marker.exists, "the worker to have sent")
    answers: list[Told] = []
    with exporter_here(anywhere) as client:
        ask = [threading.Thread(target=lambda: answers.append(client.post(HALT))) for _ in range(kill_door.WAITERS + 1)]
        for one in ask:
            one.start()
        anywhere.until(lambda: answers or None, "one to be answered without waiting")
        assert (answers[0].code, answers[0].body["not_settled"]) == (202, ["on-the-wire"])
        assert latched(anywhere) == "HALT"
        assert client.get("/metrics", None).code == 200
        assert client.get("/status", None).body["kill_switch"]["state"] == "HALT"
        assert client.get().body["in_flight"] == 1
        assert len(answers) == 1, "the others wait"
        worker.signal(signal.SIGCONT)
        for one in ask:
            one.join(60)
    assert [answer.code for answer in answers] == [202] + [200] * kill_door.WAITERS
    assert {answer.body["settled"] for answer in answers[1:]} == {1}
    assert anywhere.wait_for_state("on-the-wire", "FILLED").attempt == 1
    assert len(audited(anywhere)) == 1, "however many asked, it was thrown once"


@contextlib.contextmanager
def exporter_here(here: System) -> Iterator[Client]:
    """Serve in this process."""
    told = {**here.environment, "FILLONCE_KILL_SWITCH_TOKEN": TOKEN, "METRICS_PORT": str(free_port())}
    with serving(make_exporter(replace(here.installation, settings=load_settings(told, here.folder)))) as port:
        yield Client(port=port)


def test_without_the_journal_the_redis_key_stops_and_the_answer_says_so(here: System) -> None:
    client, _ = exporter(here), here.installation
    journal = Path(here.environment["DATABASE_URL"].removeprefix("sqlite:///"))
    journal.rename(journal.with_suffix(".away"))
    journal.mkdir()
    answer = client.post(HALT)
    assert answer.code == 503, answer.body
    assert "the Redis key says HALT and stops what is new" in answer.body["words"][0]
    assert here.installation.redis.get(KEY) == b"HALT"


def test_without_redis_the_journal_stops_and_nothing_is_released(here: System) -> None:
    client = exporter(here)
    here.redis.kill()
    answer = client.post(HALT)
    assert (answer.code, latched(here)) == (200, "HALT"), answer.body
    assert "the journal alone holds the switch" in answer.body["words"][0]
    answer = client.post(RUN)
    assert (answer.code, latched(here)) == (409, "HALT"), answer.body
    assert "Redis cannot be read" in answer.body["words"][0]


def test_without_journal_and_redis_the_answer_names_what_still_stops(here: System) -> None:
    client, _ = exporter(here), here.installation
    journal = Path(here.environment["DATABASE_URL"].removeprefix("sqlite:///"))
    journal.rename(journal.with_suffix(".away"))
    journal.mkdir()
    here.redis.kill()
    answer = client.post(HALT)
    assert answer.code == 503, answer.body
    assert f"touch {kill_file(here)}" in answer.body["words"][0]


# What it releases


def test_release_is_refused_while_an_order_is_in_doubt_in_the_command_s_words(anywhere: System) -> None:
    client = exporter(anywhere)
    left_in_doubt(anywhere, "doubtful")
    assert client.post(HALT).code == 200
    answer = client.post(RUN)
    said = "not released: doubtful is IN_DOUBT: wait for reconcile, or `fillonce intents resolve`"
    assert (answer.code, answer.body["is_done"], answer.body["words"]) == (409, False, [said]), answer.body
    assert latched(anywhere) == "HALT"
    anywhere.start("reconciler")
    anywhere.wait_for_state("doubtful", "FILLED")
    assert client.post(RUN).code == 200
    assert latched(anywhere) == "RUN"


def test_release_leaves_what_another_source_holds_and_names_it(here: System) -> None:
    client = exporter(here)
    here.start("reconciler")
    here.installation.redis.set(KEY, "true")
    here.until(lambda: latches(here) == {"redis_key": "HALT"} or None, "the key to be mirrored")
    assert client.post(HALT).code == 200
    answer = client.post(RUN)
    assert (answer.code, answer.body["state"]) == (409, "HALT")
    assert "redis_key holds HALT" in answer.body["error"]
    assert latches(here) == {"redis_key": "HALT"}
    assert here.installation.redis.get(KEY) == b"true"


# Who may


def test_wrong_token_is_refused_and_changes_nothing(here: System) -> None:
    client = exporter(here)
    before = standing(here)
    wrong = [("Bearer", None), ("Bearer", "x"), ("Bearer", TOKEN[:-1]), ("Bearer", f"{TOKEN}0"), ("Basic", TOKEN)]
    for scheme, token in wrong:
        answer = client.post(HALT, token, scheme=scheme)
        assert (answer.code, answer.body["error"]) == (401, "the token is missing or wrong"), (scheme, token)
        assert "Authorization: Bearer" in answer.body["remedy"]
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert client.get(token=None).code == 401
    assert (standing(here), audited(here)) == (before, [])


def test_wrong_tokens_without_end_are_refused_and_the_right_one_is_still_heard(here: System) -> None:
    client = exporter(here)
    codes = [client.post(HALT, "wrong" * 8).code for _ in range(kill_door.WRONG_PER_MINUTE + 2)]
    assert codes == [401] * kill_door.WRONG_PER_MINUTE + [429] * 2
    answer = client.post(HALT, "wrong" * 8)
    assert answer.headers["Retry-After"] == "60"
    assert latched(here) == "RUN"
    assert client.post(HALT).code == 200
    assert latched(here) == "HALT"


def test_without_a_token_in_the_settings_nobody_is_heard(here: System) -> None:
    client = exporter(here, None)
    before = standing(here)
    for answer in (client.post(HALT), client.post(HALT, None), client.get()):
        assert answer.code == 404
        assert "FILLONCE_KILL_SWITCH_TOKEN_FILE" in answer.body["remedy"]
    assert standing(here) == before
    assert client.post(HALT, path="/metrics").code == 405
    assert client.post(HALT, path="/elsewhere").code == 404


def test_token_is_nowhere_to_be_read(here: System) -> None:
    client = exporter(here)
    client.post(HALT)
    client.post(HALT, "wrong-and-secret-all-the-same-0123")
    here.environment["FILLONCE_KILL_SWITCH_TOKEN"] = TOKEN
    shown = here.cli("config", "show")
    assert "kill_switch.http_token" in shown
    here.until(lambda: "kill_switch_wrong_token" in here.processes[0].words() or None, "the log to say so")
    pages = [str(client.get(path, None).body) for path in ("/metrics", "/status", "/readyz", "/")]
    read = "".join([shown, *pages, *(one.words() for one in here.processes)])
    assert TOKEN not in read
    assert "wrong-and-secret" not in read


# What it does not understand


BAD = (
    (b"", 400, "body"),
    (b"{", 400, "body"),
    (b"\xff\xfe", 400, "body"),
    (b"[" * 4000, 400, "body"),
    (b'["HALT"]', 400, "body"),
    (b'{"state": "RUN", "state": "HALT", "reason": "r", "by": "b"}', 400, "state"),
    ({**HALT, "reason": "x" * 5000}, 413, "body"),
    ({**HALT, "reason": "x" * 100_000}, 413, "body"),
    ({**HALT, "force": True}, 422, "force"),
    ({**HALT, "state": "STOP"}, 422, "state"),
    ({**HALT, "state": True}, 422, "state"),
    ({"reason": "r", "by": "b"}, 422, "state"),
    ({**HALT, "reason": " "}, 422, "reason"),
    ({**HALT, "reason": 7}, 422, "reason"),
    ({**HALT, "reason": "a\u0000b"}, 422, "reason"),
    (b'{"state": "HALT", "reason": "\\ud800", "by": "b"}', 422, "reason"),
    ({**HALT, "reason": "x" * 501}, 422, "reason"),
    ({"state": "HALT", "reason": "r"}, 422, "by"),
    ({**HALT, "by": "x" * 101}, 422, "by"),
)


def test_what_is_not_understood_is_refused_by_field_and_remedy_and_changes_nothing(here: System) -> None:
    client = exporter(here)
    before = standing(here)
    for body, code, field in BAD:
        answer = client.post(body)
        assert (answer.code, answer.body["field"]) == (code, field), body
        assert answer.body["error"].startswith(f"{field}: ")
        assert answer.body["remedy"]
    assert (standing(here), audited(here)) == (before, [])


def test_body_that_is_announced_and_never_comes_changes_nothing_and_holds_nobody_up(here: System) -> None:
    client = exporter(here)
    head = f"POST /kill-switch HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", client.port)) as slow,
        _asked(client.port, head.replace("100", "x")) as odd,
    ):
        slow.sendall(head.encode() + b'{"state": "HALT"')
        assert b" 413 " in odd.recv(100)
        assert client.get().body["state"] == "RUN"
        assert client.get("/metrics", None).code == 200
        slow.shutdown(socket.SHUT_WR)
        assert b" 413 " in slow.recv(100)
    assert audited(here) == []


@contextlib.contextmanager
def _asked(port: int, head: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(head.encode())
        yield one


def test_token_that_could_be_guessed_starts_no_exporter(here: System) -> None:
    """The command still stops: a bad setting of one door must not close the others."""
    one = run_cli(here, "exporter", FILLONCE_KILL_SWITCH_TOKEN="hunter2")
    assert one.wait() == 2
    assert "kill_switch.http_token: too short" in one.words()
    assert "openssl rand -hex 32" in one.words()
    assert "hunter2" not in one.words()
    assert run_cli(here, "kill-switch", "on", *WHO, FILLONCE_KILL_SWITCH_TOKEN="hunter2").wait() == 0
    assert latched(here) == "HALT"
