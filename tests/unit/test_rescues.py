"""Who rescues what the dead were doing: the keeper over its line, and a process of its own where that is unsure."""

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workers import rescue_line
from workers.rescue_line import SupervisorEnd
from workers.rescues import Rescues

ROOT = Path(__file__).resolve().parents[2]
LONG_S = 60.0
SOON_S = 0.02
CHILD = """
import os, socket
from workers import children
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

def work():
    names = sorted(os.listdir("/dev/fd"))  # the last of them is that of the folder itself
    socket.socket(fileno=children.INHERITED).send(" ".join(names).encode())
    return 0

pid = children.fork(work, give=theirs.fileno())
os.waitpid(pid, 0)
print(ours.recv(100).decode())
"""


@dataclass
class Stage:
    """A supervisor's rescues; processes are only counted, and the keeper is a thread of this one."""

    forked: list[list[str]] = field(default_factory=list)
    rescued: list[str] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)
    listeners: list[threading.Thread] = field(default_factory=list)
    rescues: Rescues = field(init=False)

    def __post_init__(self) -> None:
        self.rescues = Rescues(self.fork)

    def fork(self, owners: Sequence[str]) -> int:
        self.forked.append(list(owners))
        return 1_000 + len(self.forked)

    def connect(self, patience_s: float = LONG_S) -> socket.socket:
        """Begin to use a new line; return the keeper's end, at which nobody listens yet."""
        ours, theirs = rescue_line.make_line()
        self.ends.append(theirs)
        self.rescues.use(SupervisorEnd(ours.socket, patience_s))
        return theirs

    def keeper(self, rescue: Callable[[str], bool] | None = None, *, patience_s: float = LONG_S) -> None:
        """Have a keeper listen that rescues by `rescue`, and wait until the supervisor can know."""
        theirs = self.connect(patience_s)
        self.listeners.append(rescue_line.listen(theirs, rescue or self.rescue))
        self.readable()

    def rescue(self, owner: str) -> bool:
        self.rescued.append(owner)
        return True

    def readable(self) -> None:
        """Wait until the supervisor has something to hear."""
        (descriptor,) = self.rescues.descriptors
        ready, _, _ = select.select([descriptor], [], [], LONG_S)
        assert ready, self

    def until(self, look: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + LONG_S
        while not look():
            assert time.monotonic() < deadline_s, self
            self.rescues.look()
            time.sleep(0.001)


@pytest.fixture
def stage() -> Iterator[Stage]:
    one = Stage()
    yield one
    for end in one.ends:
        end.shutdown(socket.SHUT_RDWR)  # ends whoever listens
    for listener in one.listeners:
        listener.join(LONG_S)
    for end in one.ends:
        end.close()
    one.rescues.keeper_died()


def test_keeper_that_listens_rescues_and_no_process_is_started(stage: Stage) -> None:
    stage.keeper()
    assert not stage.rescues.are_underway
    stage.rescues.begin(["dead-a", "dead-b"])
    assert stage.rescues.are_underway
    stage.until(lambda: not stage.rescues.asks_keeper)
    assert (stage.rescued, stage.forked) == (["dead-a", "dead-b"], [])


def test_process_rescues_while_there_is_no_keeper(stage: Stage) -> None:
    stage.rescues.begin(["dead"])
    assert stage.forked == [["dead"]]
    assert stage.rescues.are_underway
    assert stage.rescues.ended(1_001)
    assert not stage.rescues.are_underway
    assert not stage.rescues.ended(1_001)


def test_process_rescues_while_the_keeper_has_not_said_that_it_listens(stage: Stage) -> None:
    stage.connect()
    stage.rescues.begin(["dead"])
    assert stage.forked == [["dead"]]


def test_what_the_keeper_could_not_do_is_handed_on_once(stage: Stage) -> None:
    stage.keeper(lambda owner: owner != "bad")
    stage.rescues.begin(["good", "bad"])
    stage.until(lambda: bool(stage.forked))
    stage.rescues.begin(["good"])
    stage.until(lambda: not stage.rescues.asks_keeper)
    assert stage.forked == [["good", "bad"]]


def test_failure_that_is_heard_while_the_next_is_asked_for_is_handed_on(stage: Stage) -> None:
    stage.keeper(lambda owner: owner != "bad")
    stage.rescues.begin(["bad"])
    stage.readable()
    stage.rescues.begin(["good"])
    stage.until(lambda: not stage.rescues.asks_keeper)
    assert stage.forked == [["bad"]]


def test_keeper_that_does_not_answer_in_time_is_not_waited_for_and_leaves_alone_what_it_reads_late(
    stage: Stage,
) -> None:
    may_go_on = threading.Event()

    def slow(owner: str) -> bool:
        may_go_on.wait(LONG_S)
        return stage.rescue(owner)

    stage.keeper(slow, patience_s=SOON_S)
    stage.rescues.begin(["first"])
    stage.rescues.begin(["second"])
    assert 0 <= stage.rescues.wait_s(LONG_S) <= SOON_S, "it would sleep beyond the time of the answer"
    stage.until(lambda: not stage.rescues.asks_keeper)
    assert stage.forked == [["first"], ["second"]]
    may_go_on.set()
    stage.readable()
    stage.rescues.look()
    assert (stage.rescued, stage.forked) == (["first"], [["first"], ["second"]])


def test_what_a_dying_keeper_leaves_is_handed_on(stage: Stage) -> None:
    theirs = stage.connect()
    theirs.send(b'{"number": 0, "is_done": true}')
    stage.rescues.begin(["dead"])
    assert stage.forked == []
    stage.rescues.keeper_died()
    stage.rescues.begin(["keeper"])
    assert stage.forked == [["dead"], ["keeper"]]


def test_keeper_whose_end_is_closed_is_not_asked(stage: Stage) -> None:
    stage.keeper()
    stage.rescues.look()
    ours, theirs = rescue_line.make_line()
    theirs.send(b'{"number": 0, "is_done": true}')
    theirs.close()
    stage.rescues.use(ours)
    stage.rescues.begin(["dead"])
    assert stage.forked == [["dead"]]


def test_line_of_which_nobody_reads_is_given_up_when_it_is_full(stage: Stage) -> None:
    stage.connect().send(b'{"number": 0, "is_done": true}')
    count = 0
    while not stage.forked and count < 100_000:
        stage.rescues.begin(["dead" * 1_000])
        count += 1
    assert stage.forked == [["dead" * 1_000]]


def test_child_has_the_descriptor_that_it_was_given_and_no_other() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "0 1 2 3 4\n", ended.stderr
