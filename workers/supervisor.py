"""Starts, watches and restarts workers and keeper on this machine. Holds no connection and no thread itself.

A child that dies is noticed by waitpid at once: the keeper, or else a one-shot child, rescues what it was doing while
its successor starts.
"""

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Final

from app.clock import SystemClock
from app.delivery import QUEUES
from app.job_safety.errors import StoreUnavailableError, TerminalError
from app.observability.log import make_logger
from app.settings import Settings, SettingsError
from app.wiring import connect_redis, redis_url, settings_from_environment
from workers import children, rescue_line
from workers.identity import new_owner
from workers.keeper import run_keeper
from workers.patience import run_with_stores
from workers.redis_watch import check_before_work
from workers.rescue import run_rescue
from workers.rescues import Rescues
from workers.run import BOOK_QUEUES, names_of, run_workers, threads_on
from workers.shared import a_queue_each, run_shared

RESTART_PAUSES_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before the next start of a role that keeps dying young."""

YOUNG_S: Final = 2.0
DRAIN_S: Final = 30.0
"""How long running work may take to finish after SIGTERM; longer than the outer deadline of a request."""

HURRY_S: Final = 1.0
"""The same once it is asked again: what is on the wire then is reconciled by whoever comes next."""

TICK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a child is for."""

    name: str
    number: int
    run: Callable[[str], int]
    owners: Callable[[str], list[str]]
    """Under which names the child works, given the name of its process."""
    is_worker: bool = True
    is_keeper: bool = False
    """Whether it listens to who has died, on the descriptor `children.INHERITED`."""

    @property
    def label(self) -> str:
        """The name that people read."""
        return f"{self.name}-{self.number}"


@dataclass(slots=True, kw_only=True)
class Child:
    """A running child."""

    role: Role
    owner: str
    started_s: float


@dataclass(slots=True)
class _State:
    running: dict[int, Child] = field(default_factory=dict)
    early_deaths: dict[str, int] = field(default_factory=dict)
    due: list[tuple[float, Role]] = field(default_factory=list)
    stops_asked: int = 0


class Supervisor:
    """Keeps one process per role running until it is told to stop."""

    def __init__(self, roles: Sequence[Role]) -> None:
        self._roles = roles
        self._state = _State()
        self._rescues = Rescues(lambda owners: children.fork(partial(_rescue, owners)))
        self._log = make_logger(owner="supervisor")
        self._wake_r, self._wake_w = os.pipe()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, then let running work finish; return the exit code."""
        self._listen()
        children.freeze()
        for role in self._roles:
            self._start(role)
        while not self._state.stops_asked:
            self._wait(TICK_S)
            self._reap()
            self._start_due()
        return self._drain()

    def _listen(self) -> None:
        for end in (self._wake_r, self._wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        del number
        self._state.stops_asked += 1

    def _start(self, role: Role) -> None:
        owner = new_owner(role.label)
        if role.is_keeper:
            line, theirs = rescue_line.make_line()
            with theirs:
                pid = children.fork(partial(role.run, owner), give=theirs.fileno())
            self._rescues.use(line)
        else:
            pid = children.fork(partial(role.run, owner))
        self._state.running[pid] = Child(role=role, owner=owner, started_s=time.monotonic())
        self._log.info("child_started", role=role.label, pid=pid)

    def _start_due(self) -> None:
        now = time.monotonic()
        ready = [role for when, role in self._state.due if when <= now]
        self._state.due = [(when, role) for when, role in self._state.due if when > now]
        for role in ready:
            self._start(role)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        state = self._state
        if self._rescues.ended(pid):
            return
        child = state.running.pop(pid, None)
        if child is None:
            return
        code = os.waitstatus_to_exitcode(status)
        self._log.warning("child_ended", role=child.role.label, pid=pid, code=code)
        if child.role.is_keeper:
            self._rescues.keeper_died()
        # Also after a clean exit: it finds nothing then, and costs a few milliseconds.
        self._rescues.begin(child.role.owners(child.owner))
        if state.stops_asked:
            return
        is_young = time.monotonic() - child.started_s < YOUNG_S
        deaths = state.early_deaths.get(child.role.label, 0) + 1 if is_young else 0
        state.early_deaths[child.role.label] = deaths
        pause_s = RESTART_PAUSES_S[min(deaths, len(RESTART_PAUSES_S) - 1)]
        if pause_s:
            state.due.append((time.monotonic() + pause_s, child.role))
        else:
            self._start(child.role)

    def _drain(self) -> int:
        """Stop the workers first, so that the others look after what they leave; asked again, hurry."""
        self._log.info("draining", children=len(self._state.running))
        deadline = time.monotonic() + DRAIN_S
        told = 0
        while self._state.running and time.monotonic() < deadline:
            if told < self._state.stops_asked:
                told = self._state.stops_asked
                self._tell(signal.SIGTERM, workers_only=True)
                if told > 1:
                    deadline = min(deadline, time.monotonic() + HURRY_S)
            self._wait(TICK_S)
            self._reap()
            if not (self._rescues.asks_keeper or any(one.role.is_worker for one in self._state.running.values())):
                self._tell(signal.SIGTERM, workers_only=False)
        self._tell(signal.SIGKILL, workers_only=False)
        while self._rescues.are_underway and time.monotonic() < deadline + TICK_S:
            self._wait(TICK_S)
            self._reap()
        return 0

    def _tell(self, number: signal.Signals, *, workers_only: bool) -> None:
        for pid, child in self._state.running.items():
            if child.role.is_worker or not workers_only:
                os.kill(pid, number)

    def _wait(self, seconds: float) -> None:
        waits_for = [self._wake_r, *self._rescues.descriptors]
        ready, _, _ = select.select(waits_for, [], [], self._rescues.wait_s(seconds))
        if self._wake_r in ready:
            os.read(self._wake_r, 4096)
        self._rescues.look()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Wakes the loop through the wakeup descriptor; SIG_DFL would not."""


def roles_of(workers: Mapping[str, int], *, threads: int = 1) -> list[Role]:
    """Return the roles of a whole system with `workers` processes per queue.

    Those that talk to the exchange work with `threads` threads each. Queues of book work with one worker each share a
    process, a thread each.
    """
    together = tuple(queue for queue in BOOK_QUEUES if workers.get(queue) == 1)
    counts = [(queue, count, threads_on(queue, threads)) for queue, count in workers.items()]
    roles = [
        Role(name=queue, number=number, run=partial(_work, queue, at_once), owners=partial(_names, queue, at_once))
        for queue, count, at_once in counts
        if queue not in together
        for number in range(1, count + 1)
    ]
    if together:
        roles.append(
            Role(name="books", number=1, run=partial(_work_together, together), owners=partial(_each, together))
        )
    roles.append(Role(name="keeper", number=1, run=_keep, owners=_alone, is_worker=False, is_keeper=True))
    return roles


def _alone(owner: str) -> list[str]:
    return [owner]


def _names(queue: str, threads: int, owner: str) -> list[str]:
    return names_of(owner, queue=queue, threads=threads)


def _each(queues: Sequence[str], owner: str) -> list[str]:
    return [place.name for place in a_queue_each(owner, queues)]


def _work(queue: str, threads: int, owner: str) -> int:
    return run_with_stores(
        lambda here: run_workers(queue, process=owner, threads=threads, installation=here), owner=owner
    )


def _work_together(queues: Sequence[str], owner: str) -> int:
    return run_with_stores(lambda here: run_shared(a_queue_each(owner, queues), installation=here), owner=owner)


def _keep(owner: str) -> int:
    return run_keeper(owner=owner, line=children.INHERITED)


def _rescue(owners: Sequence[str]) -> int:
    return max(run_rescue(owner) for owner in owners)


def worker_counts(settings: Settings, text: str) -> dict[str, int]:
    """Return how many workers each queue gets: the settings, changed by `text` such as `orders=4,urgent=2`.

    Raises:
        ValueError: a queue has no such name, or a number is none.
    """
    counts = {queue: int(getattr(settings.workers, queue)) for queue in QUEUES}
    for item in filter(None, text.split(",")):
        queue, _, number = item.partition("=")
        if queue not in counts:
            raise ValueError(f"--workers: {queue!r} is not a queue; use {', '.join(QUEUES)}")
        if not number.isdigit() or not 1 <= int(number) <= 100:
            raise ValueError(f"--workers: {item!r} needs a number from 1 to 100, such as orders=4")
        counts[queue] = int(number)
    return counts


class _Logged:
    """Tells by the log alone: a recorder would keep counters, which is the children's affair."""

    def event(self, name: str, *, count: bool = True, level: str = "info", **fields: object) -> None:
        """Log `name` with `fields`."""
        del count
        getattr(make_logger(owner="supervisor"), level)(name, **fields)


def check_redis(settings: Settings) -> None:
    """Look at Redis once before anything starts, and leave no connection open: children would share it.

    Raises:
        TerminalError: in mode live on a Redis that is not safe to trade on, or there is no private one to start.
        StoreUnavailableError: the private one does not answer.
    """
    clock = SystemClock()
    client = connect_redis(redis_url(settings, clock))
    try:
        check_before_work(client, settings, clock, _Logged())
    finally:
        client.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the supervisor from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.supervisor", description="Run the whole system here.")
    parser.add_argument("--workers", default="", help="processes per queue, such as orders=4,urgent=1")
    parsed = parser.parse_args(arguments)
    try:
        settings = settings_from_environment()
        counts = worker_counts(settings, parsed.workers)
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        check_redis(settings)
    except StoreUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except TerminalError as error:  # an unsafe Redis, or a private one that cannot be started
        sys.stderr.write(f"{error}\n")
        return 1
    return Supervisor(roles_of(counts, threads=settings.workers.threads)).run()


if __name__ == "__main__":
    sys.exit(main())
