"""The documents as their readers use them: commands run and answer as shown, and names and numbers are the code's.

A block is run unless the line before it is `<!-- not run: why -->`. A `console` block shows commands behind `$` and
what they answer; a `sh` block is commands alone; a `python` block is a program. What differs from run to run (numbers,
times, and the width of columns) is compared by its shape.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from app.cli.demo.table import Result, lines
from app.clock import SystemClock
from app.embedded.redis_server import stop_redis
from app.job_safety.state import SENDABLE, TERMINAL_STATES, IntentState
from app.settings.model import Exchange, Guard, Horizons, Policy

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
START_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page, and the comment on the line before it."""

    mark: str
    kind: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.kind in {"console", "sh", "python"} and not self.mark.startswith("not run")

    def commands(self) -> list[tuple[str, str]]:
        """Return each command with the answer that is shown."""
        if self.kind == "sh":
            return [(line, "") for line in self.text.splitlines()]
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        return [(command, answer) for command, _, answer in (part.partition("\n") for part in parts)]


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text())
    return [Block(mark=one["mark"] or "", kind=one["kind"], text=one["text"]) for one in found]


def shape(text: str) -> list[str]:
    """Return what must be the same in every run: words, not numbers, and no widths."""
    kept = [line for line in text.splitlines() if line and not line.startswith("data: ")]
    return [re.sub(r" +", " ", re.sub(r"\d[\d.:TZ-]*", "#", line)).strip() for line in kept]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A system as both pages start it, in a home of its own; yields the environment of the second terminal."""
    home = tmp_path / "home"
    programs = Path(sys.executable).parent
    inherited = {name: value for name, value in os.environ.items() if name in {"LANG", "LC_ALL"}}
    environment = {
        **inherited, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "FILLONCE_HOME": str(home),
        "PYTHONPATH": str(ROOT), "METRICS_PORT": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "app", "up", "--workers", "1", "--speed", "0"]
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while "running; Ctrl-C stops" not in log.read_text():
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


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_commands_of_the_page_answer_as_it_says(name: str, system: dict[str, str], tmp_path: Path) -> None:
    """In their order, in one folder, against a running system."""
    ran = 0
    for block in blocks(ROOT / name):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text)
        elif block.is_run and block.kind == "python":
            program = tmp_path / "program.py"
            program.write_text(block.text)
            done = _run([sys.executable, str(program)], system, tmp_path)
            assert (done.returncode, done.stdout.strip()) == (0, "accepted"), done.stdout
            ran += 1
        elif block.is_run:
            for command, answer in block.commands():
                done = _run(["/bin/sh", "-c", command], system, tmp_path)
                assert shape(done.stdout) == shape(answer), f"$ {command}\n{done.stdout}"
                ran += 1
    assert ran > 3


def _run(command: list[str], environment: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_the_shape_of_an_answer_keeps_words_and_drops_numbers() -> None:
    assert shape("data: x\na  12.5 OK\n") == ["a # OK"] == shape("a 7   OK")
    assert shape("a 7 OK") != shape("a 7 NO")
    assert shape("a\n") != shape("a\nb\n")


def test_every_shell_block_is_run_or_says_why_not() -> None:
    tested = {ROOT / "README.md", ROOT / "docs/tutorial.md"}
    for page in tested:
        for block in blocks(page):
            if block.kind in {"console", "sh"} and not block.is_run:
                assert re.fullmatch(r"not run: \S.*", block.mark), block


def test_make_commands_of_the_pages_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = {
        word
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for word in re.findall(r"(?:`|^|\$ )make ([a-z][a-z-]*)", page.read_text(), flags=re.MULTILINE)
    }
    assert {"demo", "test", "install"} <= used
    assert used - targets == set()


def test_the_table_of_the_demo_in_the_readme_is_the_one_it_prints() -> None:
    (shown,) = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("$ make demo\n")]
    command, first, second, *table = shown.splitlines()
    assert command == "$ make demo"
    assert first.startswith("demo: private Redis, SQLite and local exchange under ")
    assert second == "240 intents, 8 workers to kill, limits wide, seed 1"
    clean = Result(
        intents=240, orders=240, duplicates=0, lost=0, expired=0, fills=240, differences=0, pnl=Decimal(-37),
        kills=8, kills_wanted=8, kills_on_the_wire=8, in_doubt=8, seconds=1, seed=1, home=ROOT,
    )  # fmt: skip
    labels = [re.split(r"  +", line)[0] for line in lines(clean) if line]
    assert [re.split(r"  +", line)[0] for line in table if line] == labels


def test_every_fillonce_command_of_the_pages_exists_with_its_options() -> None:
    reference = (ROOT / "docs/reference/commands.md").read_text()
    sections = dict(re.findall(r"^## (fillonce[\w -]*)\n(.*?)(?=^## |\Z)", reference, flags=re.MULTILINE | re.DOTALL))
    unknown = []
    for page in PAGES:
        if page.name in {"commands.md", "bad-input.md"}:  # the one is the reference, the other shows mistakes
            continue
        for command in re.findall(r"(?:`|^|\$ )(fillonce [^`\n|]*)", page.read_text(), flags=re.MULTILINE):
            words = command.partition(" #")[0].split()
            name = list(words)
            while " ".join(name) not in sections:
                name.pop()
            section = sections[" ".join(name)]
            rest = words[len(name) :]
            # What follows a group is one of its commands, but for `enqueue FILE`.
            if "Commands:" in section and name[1:] != ["enqueue"] and rest and not rest[0].startswith(("-", "…")):
                unknown.append(f"{page.name}: {command}")
            unknown += [
                f"{page.name}: {command}: {word}" for word in rest if word.startswith("--") and word not in section
            ]
    assert unknown == []


def test_the_states_table_names_every_state_and_says_which_are_final() -> None:
    text = (ROOT / "docs/explanation/protocol.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", text, flags=re.MULTILINE))
    assert set(rows) == {state.value for state in IntentState}
    final = {name for name, meaning in rows.items() if meaning.startswith("final")}
    assert final == {state.value for state in TERMINAL_STATES}
    sendable = re.search(r"^Only `(\w+)` and `(\w+)` may be sent", text, flags=re.MULTILINE)
    assert sendable is not None
    assert set(sendable.groups()) == {state.value for state in SENDABLE}


def test_the_horizons_on_the_page_are_the_defaults() -> None:
    text = (ROOT / "docs/explanation/limits.md").read_text()
    groups = {"exchange": Exchange(), "horizons": Horizons(), "guard": Guard(), "policy": Policy()}
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (\d+) \|", text, flags=re.MULTILINE)
    assert len(rows) > 10
    assert [(group, name, int(value)) for group, name, value in rows] == [
        (group, name, getattr(groups[group], name)) for group, name, _ in rows
    ]


def test_every_decision_has_its_line_in_the_index() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    for record in sorted((ROOT / "docs/adr").glob("[0-9]*.md")):
        title = record.read_text().splitlines()[0].partition(" ")[2]
        number, _, decision = title.partition(" ")
        number = number.rstrip(":.").zfill(4)
        assert f"| [{number}]({record.name}) | {decision} |" in index, record.name


def test_links_to_a_heading_find_it() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", page.read_text()):
            file, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = (page.parent / file) if file else page
            headings = re.findall(r"^#+ (.*)$", there.read_text(), flags=re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in known:
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_json_of_the_pages_is_json() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.kind == "json":
                for line in block.text.splitlines():
                    json.loads(line)


def test_nobody_promises_more_than_can_be_kept() -> None:
    forbidden = "exactly" + " once"
    assert [page.name for page in PAGES if forbidden in page.read_text().lower().replace("-", " ")] == []
