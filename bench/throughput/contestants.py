"""Who is measured, how its workers are started, and when one of its orders counts as done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from redis import Redis

from app.clock import SystemClock
from app.embedded.redis_server import ensure_redis, stop_redis
from bench.output import ROOT
from bench.peers import venv

WARM_UP: Final = 30
LONGEST_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A queue and its way to run a worker. `{bin}` is the folder of its Python, `{redis}` the address of Redis."""

    letter: str
    name: str
    module: str
    command: Sequence[str]
    is_ours: bool = False
    database: str | None = None
    """For ours: None is SQLite, else the URL of a PostgreSQL server."""


_RQ: Final = ("{bin}/rq", "worker", "--quiet", "-u", "{redis}")
_CELERY: Final = (
    "{bin}/celery", "-A", "bench.throughput.on_celery", "worker", "--concurrency", "1", "-l", "ERROR",
    "--without-gossip", "--without-mingle", "--without-heartbeat", "-n", "w{n}@%h",
)  # fmt: skip
_HUEY: Final = ("{bin}/huey_consumer", "bench.throughput.on_huey.huey", "-w", "1", "-q")
_OURS: Final = ("{bin}/fillonce", "worker", "orders")

KINDS: Final = (
    Kind(letter="a", name="RQ SimpleWorker", module="rq", command=(*_RQ, "-w", "rq.SimpleWorker", "bench")),
    Kind(letter="b", name="RQ Worker (forks)", module="rq", command=(*_RQ, "bench")),
    Kind(letter="c", name="Celery", module="celery", command=_CELERY),
    Kind(letter="d", name="Huey", module="huey", command=_HUEY),
    Kind(letter="g", name="fillonce on SQLite", module="fillonce", command=_OURS, is_ours=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run took. Times in seconds, per job where it says so."""

    jobs_per_s: float
    cpu_ms_per_job: float
    commands_per_job: float
    reads_per_job: float


@dataclass(slots=True)
class Contestant:
    """One queue with its own Redis, sink and workers, in a folder of its own."""

    kind: Kind
    folder: Path
    workers: int
    _environment: dict[str, str] = field(default_factory=dict)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _sink: subprocess.Popen[bytes] | None = None
    _redis: Redis | None = None
    _log: IO[bytes] | None = None
    _sent: int = 0

    def start(self) -> None:
        """Start everything, and wait until the warm-up is through."""
        self.folder.mkdir(parents=True)
        self._log = (self.folder / "log").open("ab")
        port_file = self.folder / "port"
        self._sink = subprocess.Popen([sys.executable, "-m", "bench.throughput.sink", str(port_file)], cwd=ROOT)
        port = _wait(lambda: port_file.exists() and port_file.read_text(encoding="ascii"), "the sink")
        url = ensure_redis(self.folder / "redis", SystemClock()).url
        self._redis = Redis.from_url(url)
        self._environment = {"REDIS_URL": url, "SINK_URL": f"http://127.0.0.1:{port}"} | self._ours(port)
        for number in range(self.workers):
            self._processes.append(self._spawn(number))
        self._fill(WARM_UP)
        _wait(lambda: self._done() >= WARM_UP, f"{self.kind.name} to warm up; see {self.folder / 'log'}")

    def measure(self, jobs: int) -> Run:
        """Have `jobs` jobs wait, let the workers go, and measure until the last is done."""
        assert self._redis is not None
        self._signal(signal.SIGSTOP)
        try:
            self._fill(jobs)
        finally:
            before, stats = _cpu_s(self._processes), self._stats()
            started = time.perf_counter()
            self._signal(signal.SIGCONT)
        _wait(lambda: self._done() >= self._sent, f"{self.kind.name} to finish; see {self.folder / 'log'}")
        took_s = time.perf_counter() - started
        after = self._stats()
        return Run(
            jobs_per_s=jobs / took_s,
            cpu_ms_per_job=(_cpu_s(self._processes) - before) / jobs * 1000,
            commands_per_job=(after["total_commands_processed"] - stats["total_commands_processed"]) / jobs,
            reads_per_job=(after["total_reads_processed"] - stats["total_reads_processed"]) / jobs,
        )

    def stop(self) -> None:
        """End everything and drop its data."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._sink is not None:
            self._sink.kill()
            self._sink.wait()
        if self._redis is not None:
            self._redis.close()
            stop_redis(self.folder / "redis", SystemClock())
        if self._log is not None:
            self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ours(self, port: str) -> Mapping[str, str]:
        if not self.kind.is_ours:
            return {}
        return {
            "DATABASE_URL": self.kind.database or f"sqlite:///{self.folder / 'journal.db'}",
            "TRADING_MODE": "paper", "FILLONCE_HOME": str(self.folder / "home"),
            "FILLONCE_CONFIG": str(ROOT / "config"), "BINANCE_FUTURES_URL": f"http://127.0.0.1:{port}/fapi",
            "BINANCE_SPOT_URL": f"http://127.0.0.1:{port}/api", "BINANCE_API_KEY": "key",
            "BINANCE_API_SECRET": "secret",
        }  # fmt: skip

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        words = {"n": str(number), "redis": self._environment["REDIS_URL"], "bin": str(self._python.parent)}
        return subprocess.Popen(
            [part.format(**words) for part in self.kind.command], env=self._told, cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    @property
    def _python(self) -> Path:
        return Path(sys.executable) if self.kind.is_ours else venv.PYTHON

    @property
    def _told(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self._environment}

    def _fill(self, jobs: int) -> None:
        command = [str(self._python), "-m", "bench.throughput.fill", self.kind.module, str(self._sent), str(jobs)]
        subprocess.run(command, env=self._told, cwd=self.folder, check=True, stdout=self._log, stderr=self._log)
        self._sent += jobs

    def _done(self) -> int:
        assert self._sink is not None
        url = f"{self._environment['SINK_URL']}/sink/count"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback http
            told: dict[str, int] = json.load(answer)
        return told["orders"]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            os.killpg(process.pid, number)

    def _stats(self) -> dict[str, int]:
        assert self._redis is not None
        told: Any = self._redis.info("stats")
        return {name: int(told[name]) for name in ("total_commands_processed", "total_reads_processed")}


def _cpu_s(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Return the processor time of the sessions that these lead, dead children included."""
    leaders = {process.pid for process in processes}
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) in leaders:
            ticks += sum(int(one) for one in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _wait(look: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + LONGEST_S
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {LONGEST_S} s for {what}")
        time.sleep(0.005)
    return found
