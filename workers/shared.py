"""Several workers in one process, a thread and a queue each: book work is light, and a process costs 60 MB."""

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from redis.exceptions import RedisError

from app.composition import open_here
from app.job_safety.errors import StoreUnavailableError
from app.observability.log import make_logger
from app.wiring import Installation, connect_redis
from workers.quiet import quiet_rq
from workers.worker import SafetyWorker

LOOK_S: Final = 3.0
"""A thread hears of a stop only between two reads of the queue, this far apart."""

TIMEOUT_S: Final = 30


def owner_of(process: str, queue: str) -> str:
    """Return the name of the worker on `queue` in the process named `process`."""
    return f"{process}-{queue}"


class ThreadWorker(SafetyWorker):
    """A worker that is not alone in its process: signals are the process' affair, and no thread hears them."""

    wait_s = LOOK_S

    def _install_signal_handlers(self) -> None:
        """Leave signals alone: only the main thread may handle them."""

    def stop_soon(self) -> None:
        """Finish the running job, then end."""
        self._stop_requested = True


def run_shared(queues: Sequence[str], *, owner: str, installation: Installation | None = None) -> int:
    """Run one worker per queue, each in a thread of its own, until SIGTERM; return the exit code.

    If one of them ends by itself, all of them do: the supervisor starts the process again.
    """
    installation = installation or open_here()
    workers = [_worker(installation, queue, owner_of(owner, queue)) for queue in queues]
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopper(workers))
    with quiet_rq():
        threads = [threading.Thread(target=_run, args=(worker, ended), name=worker.name) for worker in workers]
        for thread in threads:
            thread.start()
        while not ended.wait(1.0):
            pass
        was_told = all(worker.is_stopping for worker in workers)
        for worker in workers:
            worker.stop_soon()
        for thread in threads:
            thread.join()
    return 0 if was_told else 1


def _worker(installation: Installation, queue: str, name: str) -> ThreadWorker:
    connection = connect_redis(installation.redis_url, timeout_s=TIMEOUT_S)
    return ThreadWorker([queue], name=name, connection=connection, installation=installation)


def _run(worker: ThreadWorker, ended: threading.Event) -> None:
    try:
        worker.work()
    except (RedisError, StoreUnavailableError) as error:
        make_logger(owner=worker.name).warning("store_went_away", error=f"{type(error).__name__}: {error}")
    finally:
        ended.set()


def _stopper(workers: Sequence[ThreadWorker]) -> Callable[[int, FrameType | None], None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        for worker in workers:
            worker.stop_soon()

    return stop
