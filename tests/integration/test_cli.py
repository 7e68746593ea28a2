"""The command line as its users meet it: a process, its two streams and its exit code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.cli.commands_page import page
from app.cli.main import COMMANDS, load
from app.cli.main import app as root
from app.clock import SystemClock
from app.embedded.redis_server import stop_redis
from app.journal import schema
from app.journal.engine import Journal
from app.producer import CONFLICT, NOT_DELIVERED
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer, free_port

ROOT = Path(__file__).parents[2]
BAD_INPUT = ROOT / "docs/reference/bad-input.md"
ORDER = {"type": "order", "key": "a", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process that has ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs `fillonce` in a folder of its own, on given stores."""

    def __init__(self, folder: Path, nursery: Nursery, **environment: str) -> None:
        self.folder = folder
        self.nursery = nursery
        self.calls = 0
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "FILLONCE_HOME": str(folder / "home"),
            "TRADING_MODE": "paper",
            **environment,
        }

    def __call__(self, *arguments: str, stdin: str | bytes = b"", **environment: str) -> Ended:
        self.calls += 1
        told = self.folder / f"{self.calls:03d}.in"
        told.write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        one = self.nursery.start(
            "app.cli.main", arguments, environment={**self.environment, **environment}, folder=self.folder,
            name=f"{self.calls:03d}", stdin=told, has_errors_apart=True,
        )  # fmt: skip
        code = one.wait(90)
        return Ended(returncode=code, stdout=one.log.read_bytes().decode(), stderr=one.errors.read_bytes().decode())

    def python(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start Python as a user does, with pipes for its two streams."""
        return subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env=self.environment, cwd=self.folder, text=True,
        )  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path, redis_url: str, nursery: Nursery) -> Shell:
    return Shell(tmp_path, nursery, REDIS_URL=redis_url, DATABASE_URL=f"sqlite:///{tmp_path / 'journal.db'}")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.close()


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def blocks(title: str) -> list[tuple[str, str]]:
    """Return the pairs (input, message) of the ```text blocks under a heading of the page about bad input."""
    section = BAD_INPUT.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for block in section.split("```text\n")[1:] for line in block.partition("\n```")[0].split("\n")]
    return [(line, told.removeprefix("  → ")) for line, told in zip(lines[::2], lines[1::2], strict=True)]


def test_every_bad_line_of_the_documentation_is_answered_as_it_says(shell: Shell) -> None:
    documented = blocks("Lines")
    assert len(documented) > 90
    good = {**ORDER, "key": "good"}
    lines = [line for line, _ in documented] + [json.dumps(good)]
    done = shell("enqueue", "-", stdin="\n".join(lines))
    answers = objects(done.stdout)
    assert [(line, answer["error"]) for line, answer in zip(lines, answers, strict=True)] == [
        *documented,
        (lines[-1], None),
    ]
    assert {answer["status"] for answer in answers[:-1]} == {"invalid"}
    assert [answer["line"] for answer in answers] == list(range(1, len(lines) + 1))
    assert (answers[-1]["key"], answers[-1]["status"]) == ("good", "accepted")
    assert done.returncode == 2
    assert f"{len(lines)} intents: 1 accepted, 0 duplicate, 0 conflict, {len(documented)} invalid" in done.stderr


def test_lines_that_cannot_be_shown_are_answered_as_the_documentation_says(shell: Shell) -> None:
    section = BAD_INPUT.read_text().partition("\n## Lines that cannot be shown\n")[2].partition("\n## ")[0]
    documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| ") and "`" in line]
    content = b"\n".join([b"x" * 3_000_000, b"[" * 60_000, b'{"\xff": 1}', b"\0", json.dumps(ORDER).encode()])
    answers = objects(shell("enqueue", "-", stdin=content).stdout)
    assert [answer["error"] for answer in answers] == [*documented, None]


def test_every_wrong_command_of_the_documentation_is_answered_as_it_says(shell: Shell) -> None:
    for command, told in blocks("Commands"):
        done = shell(*command.removeprefix("$ fillonce ").split())
        code, _, words = told.partition(": ")
        assert (str(done.returncode), words in done.stderr.splitlines()) == (code, True), (command, done.stderr)
        assert done.stdout == ""


def test_the_page_of_commands_is_current() -> None:
    """If this fails: python -m app.cli.commands_page > docs/reference/commands.md."""
    assert (ROOT / "docs/reference/commands.md").read_text() == page()


def test_the_same_file_twice_is_accepted_then_duplicate(shell: Shell) -> None:
    file = shell.folder / "in.jsonl"
    file.write_text("\n\n".join(json.dumps({**ORDER, "key": f"k-{number}"}) for number in range(3)))
    first, second = shell("enqueue", str(file)), shell("enqueue", str(file))
    assert objects(first.stdout) == [
        {"key": f"k-{number}", "status": "accepted", "error": None, "line": 2 * number + 1} for number in range(3)
    ]
    assert [(answer["status"], answer["error"]) for answer in objects(second.stdout)] == [("duplicate", None)] * 3
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_conflict_is_told_and_changes_nothing(shell: Shell) -> None:
    words = ("enqueue", "order", "--key", "a", "--symbol", "BTCUSDT", "--side", "BUY", "--quantity")
    assert objects(shell(*words, "0.010").stdout) == [{"key": "a", "status": "accepted", "error": None}]
    before = shell("intents", "show", "a", "--json").stdout
    done = shell(*words, "0.020")
    assert objects(done.stdout) == [{"key": "a", "status": "conflict", "error": CONFLICT}]
    assert done.returncode == 2
    assert shell("intents", "show", "a", "--json").stdout == before
    assert CONFLICT in BAD_INPUT.read_text()


def test_python_m_app_is_the_same_command(shell: Shell) -> None:
    with shell.python("-m", "app", "config", "hash") as process:
        said, errors = process.communicate(timeout=60)
    ended = shell("config", "hash")
    assert (process.returncode, said, errors) == (ended.returncode, ended.stdout, ended.stderr)
    assert ended.returncode == 0


def test_an_empty_file_is_no_error_and_is_told(shell: Shell) -> None:
    done = shell("enqueue", "-", stdin="\n\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "- holds no intents: nothing was enqueued" in done.stderr


def test_redis_down_is_no_reason_not_to_take_intents(shell: Shell, redis_server: RedisServer) -> None:
    redis_server.kill()
    done = shell("enqueue", "-", stdin=json.dumps(ORDER))
    assert objects(done.stdout) == [{"key": "a", "status": "accepted", "error": NOT_DELIVERED, "line": 1}]
    assert done.returncode == 0


def test_a_journal_that_is_down_ends_with_3_and_takes_nothing(shell: Shell) -> None:
    url = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none"
    done = shell("enqueue", "-", stdin=json.dumps(ORDER), DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: journal: " in done.stderr
    assert "fillonce doctor" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TRADING_MODE": "papr"}, "did you mean 'paper'?"),
        ({"TRADING_MODE": "live"}, "mode live is refused"),
        ({"DATABASE_URL": "postgresql+psycopg://u:secret@localhost:x/n"}, "is its port a number"),
        ({"REDIS_URL": "redis://:secret@localhost:x"}, "is its port a number"),
        ({"FILLONCE_HOME": "relative"}, "must be an absolute path"),
        ({"FILLONCE_CONFIG": "/nowhere"}, "/nowhere is not a folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_used_end_with_2_and_words(
    shell: Shell, environment: dict[str, str], words: str
) -> None:
    done = shell("enqueue", "-", stdin=json.dumps(ORDER), **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_journal_of_another_mode_is_refused(shell: Shell) -> None:
    shell("enqueue", "-", stdin=json.dumps(ORDER))
    done = shell("intents", "list", TRADING_MODE="dry_run")
    assert done.returncode == 2
    assert "belongs to account 'main' in mode 'paper'" in done.stderr


def test_intents_are_listed_with_the_promised_fields_newest_first(shell: Shell, journal: Journal) -> None:
    lines = [json.dumps({**ORDER, "key": f"k-{number:04}"}) for number in range(1100)]
    shell("enqueue", "-", stdin="\n".join(lines))
    with journal.write() as connection:
        connection.execute(update(schema.intents).where(schema.intents.c.key == "k-0007").values(state="FILLED"))
    listed = objects(shell("intents", "list", "--json").stdout)
    assert len(listed) == 1100
    assert len({intent["key"] for intent in listed}) == 1100
    assert [intent["created_at"] for intent in listed] == sorted((i["created_at"] for i in listed), reverse=True)
    assert list(listed[0]) == [
        "key",
        "type",
        "state",
        "attempts",
        "client_order_id",
        "exchange_order_id",
        "executed_quantity",
        "average_price",
        "reason",
        "created_at",
        "updated_at",
    ]
    assert [i["key"] for i in objects(shell("intents", "list", "--state", "filled", "--json").stdout)] == ["k-0007"]
    assert len(objects(shell("intents", "list", "--limit", "7", "--json").stdout)) == 7
    table = shell("intents", "list")
    assert len(table.stdout.splitlines()) == 51
    assert "--limit shows more" in table.stderr


def test_the_dossier_holds_intent_and_cancels(shell: Shell) -> None:
    cancel = {"type": "cancel", "key": "c", "order_key": "a"}
    shell("enqueue", "-", stdin=f"{json.dumps(ORDER)}\n{json.dumps(cancel)}")
    dossier = json.loads(shell("intents", "show", "a", "--json").stdout)
    assert dossier["intent"]["quantity"] == "1"
    assert dossier["cancels"] == [{"key": "c", "state": "RECEIVED", "attempts": 0, "reason": None}]
    assert [dossier[name] for name in ("dispatches", "proofs", "fills", "postings", "followups", "audit")] == [[]] * 6
    assert "RECEIVED" in shell("intents", "show", "a").stdout


@pytest.mark.parametrize(("state", "code"), [("REJECTED", 0), ("QUARANTINED", 4), ("IN_DOUBT", 1)])
def test_waiting_answers_by_exit_code(shell: Shell, journal: Journal, state: str, code: int) -> None:
    shell("enqueue", "-", stdin=json.dumps(ORDER))
    with journal.write() as connection:
        connection.execute(update(schema.intents).values(state=state))
    done = shell("intents", "wait", "--timeout", "1", "--json")
    assert done.returncode == code
    assert json.loads(done.stdout)["unfinished"] == (1 if code == 1 else 0)


def test_up_says_once_what_is_wrong_with_the_journal_and_starts_nothing(shell: Shell) -> None:
    done = shell("up", DATABASE_URL=f"sqlite:///{shell.folder / 'nowhere' / 'journal.db'}")
    assert done.returncode == 3
    assert done.stderr.count("there is no folder") == 1, done.stderr
    assert "running" not in done.stderr


def test_ctrl_c_ends_a_wait_with_130_and_no_traceback(shell: Shell) -> None:
    shell("enqueue", "-", stdin=json.dumps(ORDER))
    # A shell starts what runs in its background with SIGINT ignored, and Python then leaves it so.
    impatient = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import app.cli.waiting as w; w.WORDS_EVERY_S = 0\nfrom app.cli.main import main; main()"
    )
    process = shell.python("-c", impatient, "intents", "wait", "--timeout", "60")
    assert process.stderr is not None
    assert "not finished yet" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (130, False)


def test_a_reader_that_goes_away_is_no_traceback(shell: Shell) -> None:
    shell("enqueue", "-", stdin="\n".join(json.dumps({**ORDER, "key": f"k-{n}"}) for n in range(1000)))
    with shell.python("-m", "app", "intents", "list", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "command", [("positions",), ("ledger", "balances"), ("ledger", "postings"), ("pnl",), ("pnl", "--total")]
)
def test_empty_books_are_shown_as_such(shell: Shell, command: tuple[str, ...]) -> None:
    assert (shell(*command, "--json").stdout, len(shell(*command).stdout.splitlines())) in {("", 0), ("", 1)}


def test_doctor_finds_the_test_stores_safe(shell: Shell) -> None:
    done = shell("doctor", "--json")
    findings = {finding["check"]: finding for finding in objects(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {finding["level"] for finding in findings.values()} <= {"ok", "warn"}
    assert {"settings", "redis version", "redis eviction", "journal", "journal durability"} <= set(findings)


def test_doctor_refuses_a_redis_that_evicts(shell: Shell, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    done = shell("doctor")
    assert done.returncode == 1
    assert "fail  redis eviction" in done.stdout
    assert "set maxmemory-policy noeviction" in done.stdout


def test_doctor_tells_what_cannot_be_reached(shell: Shell) -> None:
    nobody = free_port()
    done = shell(
        "doctor",
        REDIS_URL=f"redis://127.0.0.1:{nobody}",
        DATABASE_URL=f"postgresql+psycopg://nobody@127.0.0.1:{nobody}/none",
        BINANCE_FUTURES_URL=f"http://127.0.0.1:{nobody}/fapi",
        BINANCE_SPOT_URL=f"http://127.0.0.1:{nobody}/api",
    )
    assert done.returncode == 3
    unsafe = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("fail")]
    assert unsafe == ["redis", "journal", "exchange", "exchange"]


def test_config_is_checked_shown_and_hashed_without_its_secrets(shell: Shell) -> None:
    environment = {"BINANCE_API_KEY": "the-key", "BINANCE_API_SECRET": "the-secret"}
    assert shell("config", "check", **environment).returncode == 0
    shown = shell("config", "show", "--json", **environment)
    assert {row["field"]: row["value"] for row in objects(shown.stdout)}["exchange.api_key"] == "***"
    assert "the-" not in shown.stdout + shown.stderr
    assert len(shell("config", "hash").stdout.strip()) == 64
    broken = shell("config", "check", FILLONCE_ACOUNT="x")
    assert (broken.returncode, "FILLONCE_ACCOUNT" in broken.stdout) == (2, True)


def test_the_summaries_are_those_of_the_commands() -> None:
    for name in COMMANDS:
        assert load(name).help, name
        assert "Example:" in page().partition(f"## fillonce {name}")[2], name
    assert root.registered_callback is not None


def test_embedded_stores_say_where_their_data_is(tmp_path: Path, nursery: Nursery) -> None:
    shell = Shell(tmp_path, nursery)
    home = f"data: {tmp_path / 'home'} (FILLONCE_HOME)"
    try:
        assert home in shell("enqueue", "-", stdin=json.dumps(ORDER)).stderr
        assert home in shell("intents", "list").stderr
    finally:
        assert stop_redis(tmp_path / "home", SystemClock())
