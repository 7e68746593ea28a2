"""A peer under test: its own Redis, the sink, two workers that are started again when they die."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from redis import Redis

from app.clock import SystemClock
from app.embedded.redis_server import ensure_redis, stop_redis
from bench.output import ROOT
from bench.peers import processes
from bench.peers.plan import WORKERS, Row
from bench.peers.sink import COUNTED, Sink
from bench.peers.work import DONE

START_S: Final = 60
WARM_UP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Which peer, how it is started, and what is killed."""

    module: str
    name: str
    settings: str
    command: Sequence[str]
    """Of one worker; `{n}` is its number, `{redis}` the address of Redis."""
    killed: str = "worker with its children"
    kills_whole_worker: bool = True
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Peer:
    """One run of a peer in a folder of its own."""

    kind: Kind
    python: Path
    folder: Path
    kill_at: frozenset[int]
    orders: int = 0
    _sink: Sink = field(init=False)
    _environment: dict[str, str] = field(default_factory=dict)
    _workers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _feeder: subprocess.Popen[str] | None = None
    _redis: Redis | None = None
    _log: IO[bytes] | None = None

    def start(self) -> None:
        """Start Redis, sink, workers and feeder, and wait until warm-up orders have gone through."""
        self.folder.mkdir(parents=True)
        url = ensure_redis(self.folder, SystemClock()).url
        self._redis = Redis.from_url(url)
        kill = processes.kill_session_of if self.kind.kills_whole_worker else processes.kill_one
        self._sink = Sink(kill=kill, kill_at=self.kill_at)
        self._sink.serve()
        self._environment = {"REDIS_URL": url, "SINK_URL": self._sink.url, **dict(self.kind.environment)}
        self._log = (self.folder / "workers.log").open("ab")
        self._feeder = subprocess.Popen(
            [str(self.python), "-m", "bench.peers.feed", self.kind.module], env=self._environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1,
        )  # fmt: skip
        self.tend()
        for number in range(WARM_UP):
            self._enqueue(f"warm-{number}")
        deadline_s = time.monotonic() + START_S
        while self._done() < WARM_UP:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.kind.name} did not start: see {self.folder / 'workers.log'}")
            time.sleep(0.05)

    def submit(self, number: int) -> None:
        """Enqueue one order."""
        self._enqueue(f"{COUNTED}{number:05d}")
        self.orders += 1

    def _enqueue(self, client_id: str) -> None:
        assert self._feeder is not None
        assert self._feeder.stdin is not None
        assert self._feeder.stdout is not None
        self._feeder.stdin.write(f"{client_id}\n")
        if not self._feeder.stdout.readline():
            raise RuntimeError(f"{self.kind.name}: the feeder died: see {self.folder / 'workers.log'}")

    def tend(self) -> None:
        """Start workers that are not running."""
        assert self._redis is not None
        assert self._log is not None
        for number in range(1, WORKERS + 1):
            worker = self._workers.get(number)
            if worker is None or worker.poll() is not None:
                words = {"n": str(number), "redis": self._environment["REDIS_URL"], "bin": str(self.python.parent)}
                command = [part.format(**words) for part in self.kind.command]
                self._workers[number] = processes.start(command, self._environment, self._log, self.folder)

    def killed_count(self) -> int:
        """Return how many workers have been killed."""
        return len(self._sink.killed)

    def finished_count(self) -> int:
        """Return how many jobs have come to their end at least once."""
        return self._done() - WARM_UP

    def _done(self) -> int:
        assert self._redis is not None
        count = self._redis.scard(DONE)
        assert isinstance(count, int)
        return count

    def measure(self, seconds: int) -> Row:
        """Count from the sink's own record."""
        sink = self._sink
        counts = {name: len(times) for name, times in sink.executed.items() if name.startswith(COUNTED)}
        return Row(
            name=self.kind.name,
            settings=self.kind.settings,
            killed=self.kind.killed,
            orders=self.orders,
            kills=len(sink.killed),
            duplicates=sum(1 for count in counts.values() if count > 1),
            lost=self.orders - len(counts),
            stuck=self.orders - self.finished_count(),
            goes_on_s=tuple(sink.went_on_s(name) for name in sink.killed),
            seconds=seconds,
        )

    def stop(self) -> None:
        """End everything."""
        for worker in self._workers.values():
            processes.kill_session_of(worker.pid)
            worker.wait()
        if self._feeder is not None:
            self._feeder.kill()
            self._feeder.communicate()
        if self._redis is not None:
            self._sink.close()
            self._redis.close()
            stop_redis(self.folder, SystemClock())
        if self._log is not None:
            self._log.close()


RQ: Final = ("{bin}/rq", "worker", "--quiet", "-u", "{redis}", "orders")
RQ_BEST: Final = (*RQ, "--worker-ttl", "16", "--maintenance-interval", "1", "--job-monitoring-interval", "1")
CELERY: Final = (
    "{bin}/celery", "-A", "bench.peers.on_celery", "worker", "--concurrency", "1", "-n", "w{n}@%h", "-l", "WARNING",
    "--without-gossip", "--without-mingle",
)  # fmt: skip
DRAMATIQ: Final = ("{bin}/dramatiq", "bench.peers.on_dramatiq", "--processes", "1", "--threads", "1")

_BEST: Final = (("PEER_SETTINGS", "best"),)
_JOB_ONLY: Final = "only the process that runs the job"

KINDS: Final = (
    Kind(module="rq", name="RQ", settings="default", command=RQ),
    Kind(module="rq", name="RQ", settings="best", command=RQ_BEST, environment=_BEST),
    Kind(module="celery", name="Celery", settings="tuned", command=CELERY),
    Kind(
        module="dramatiq",
        name="Dramatiq",
        settings="tuned",
        command=DRAMATIQ,
        environment=(("dramatiq_queue_prefetch", "1"),),
    ),
    Kind(
        module="rq", name="RQ", settings="best", command=RQ_BEST, environment=_BEST, killed=_JOB_ONLY,
        kills_whole_worker=False,
    ),
    Kind(
        module="celery", name="Celery", settings="tuned", command=CELERY, killed=_JOB_ONLY, kills_whole_worker=False
    ),
)  # fmt: skip
