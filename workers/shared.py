"""Several workers in one process, a thread each: on a queue each, since book work is light, or together on one queue.

While an order is on its way to the exchange and back, while a commit is being synced and while Redis answers, its
thread waits; another thread of the process has the processor meanwhile. Two threads share nothing that decides: each
is a worker of its own, with its own name, leases and connections, as if it were a process.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import StopRequested

from app.composition import open_here
from app.delivery import Claim
from app.job_safety.errors import StoreUnavailableError
from app.observability.log import make_logger
from app.wiring import Installation, connect_redis
from workers.quiet import quiet_rq
from workers.room import Room
from workers.worker import SafetyWorker

LOOK_S: Final = 3.0
"""A thread hears of a stop only between two reads of the queue, this far apart."""

TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a thread works: on which queue, under which name."""

    queue: str
    name: str


def a_queue_each(process: str, queues: Sequence[str]) -> list[Place]:
    """Return the places of the process named `process`, one on each of `queues`."""
    return [Place(queue=queue, name=f"{process}-{queue}") for queue in queues]


def side_by_side(process: str, queue: str, threads: int) -> list[Place]:
    """Return the places of the process named `process`, all of them on `queue`."""
    return [Place(queue=queue, name=f"{process}-{number}") for number in range(1, threads + 1)]


class ThreadWorker(SafetyWorker):
    """A worker that is not alone in its process: signals are the process' affair, and no thread hears them.

    Of those on one queue, one at a time waits for the next job. It hands that over with the job, so that an idle
    process asks Redis no more often than a single worker would.
    """

    wait_s = LOOK_S
    turn: threading.Lock
    """Whose turn it is to wait for the next job of the queue."""

    room: Room
    """Who is at work in this process."""

    @property
    def may_go_on(self) -> bool:
        """Whether the end of a job may begin the next: not while another thread waits to be alone."""
        return super().may_go_on and self.room.may_enter(self)

    def stay_alone(self) -> bool:
        """Return whether this process is at nothing but the job under way until that ends."""
        return self.room.stay_alone(self)

    def execute_job(self, job: Any, queue: Queue) -> None:
        """Run what was begun, or decline it while another thread is alone."""
        if self.room.enter(self):
            try:
                super().execute_job(job, queue)
            finally:
                self.room.leave(self)
        else:
            self.decline(job)
        if not self.room.may_enter(self):
            self._stand_aside()

    def teardown(self) -> None:
        """End as every worker does; and be waited for by nobody, whatever broke before this thread was alone."""
        self.room.renounce(self)
        super().teardown()

    def _install_signal_handlers(self) -> None:
        """Leave signals alone: only the main thread may handle them."""

    def stop_soon(self) -> None:
        """Finish the running job, then end."""
        self._stop_requested = True

    def _wait(self) -> Claim | None:
        while not self.turn.acquire(timeout=LOOK_S):
            self._end_if_told()
            with contextlib.suppress(RedisError):  # whose turn it is tells, and does what there is to do
                self.heartbeat()
        try:
            self._end_if_told()
            return super()._wait()
        finally:
            self.turn.release()

    def _stand_aside(self) -> None:
        """Wait outside, with no job in hand, until this thread may work again; take the next if it is to be alone."""
        if self._claimed is not None:
            self.decline(self._claimed)
            self._claimed = None
        try:
            while not self.room.wait(self, LOOK_S):
                self._end_if_told()
                with contextlib.suppress(RedisError):  # who works tells, and does what there is to do
                    self.heartbeat()
            if self.room.is_next(self):
                self._claimed = self._claims.take(self._asking())
        finally:
            if self._claimed is None:
                self.room.renounce(self)

    def _end_if_told(self) -> None:
        if self.is_stopping:
            raise StopRequested


@dataclass(slots=True)
class _Ends:
    """What the threads tell the process: that one has ended, and whether it broke."""

    first: threading.Event = field(default_factory=threading.Event)
    are_clean: bool = True


def run_shared(places: Sequence[Place], *, burst: bool = False, installation: Installation | None = None) -> int:
    """Run one worker per place, each in a thread of its own, until SIGTERM; return the exit code.

    If one of them ends by itself, all of them do: the supervisor starts the process again. With `burst` each ends when
    its queue is empty.
    """
    installation = installation or open_here()
    turns, room = {place.queue: threading.Lock() for place in places}, Room()
    workers = [_worker(installation, place, turns[place.queue], room) for place in places]
    ends = _Ends()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopper(workers))
    with quiet_rq():
        threads = [threading.Thread(target=_run, args=(one, burst, ends), name=one.name) for one in workers]
        for thread in threads:
            thread.start()
        while not (burst or ends.first.wait(1.0)):
            pass
        was_told = burst or all(worker.is_stopping for worker in workers)
        if not burst:
            for worker in workers:
                worker.stop_soon()
        for thread in threads:
            thread.join()
    return 0 if was_told and ends.are_clean else 1


def _worker(installation: Installation, place: Place, turn: threading.Lock, room: Room) -> ThreadWorker:
    connection = connect_redis(installation.redis_url, timeout_s=TIMEOUT_S)
    worker = ThreadWorker([place.queue], name=place.name, connection=connection, installation=installation)
    worker.turn, worker.room = turn, room
    return worker


def _run(worker: ThreadWorker, burst: bool, ends: _Ends) -> None:  # noqa: FBT001 - a thread's argument
    try:
        worker.work(burst=burst)
    except (RedisError, StoreUnavailableError) as error:
        ends.are_clean = False
        make_logger(owner=worker.name).warning("store_went_away", error=f"{type(error).__name__}: {error}")
    except BaseException:
        ends.are_clean = False
        raise
    finally:
        ends.first.set()


def _stopper(workers: Sequence[ThreadWorker]) -> Callable[[int, FrameType | None], None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        for worker in workers:
            worker.stop_soon()

    return stop
