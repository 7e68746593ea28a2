"""One queue with its own Redis, sink, database and workers: started, measured, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from redis import Redis

from app.clock import SystemClock
from app.embedded.redis_server import RedisEndpoint, ensure_redis, stop_redis
from bench.output import ROOT
from bench.peers import venv
from bench.postgres import PostgresServer
from bench.throughput import cpu
from bench.throughput.feed import Feed
from bench.throughput.journals import Journal, Postgres, Sqlite
from bench.throughput.plan import Entry
from bench.throughput.results import Delays, Enqueued, Run
from bench.throughput.tally import Tally

WARM_UP: Final = 30
LONGEST_S: Final = 45
LOOK_S: Final = 0.002
BOOKED_LOOK_S: Final = 0.02
SETTLE_S: Final = 0.05
"""Between the last order of a run and the next step: what follows an outcome (RQ's books, a guard) goes through."""


@dataclass(slots=True)
class Contestant:
    """One entry of the plan, in a folder of its own."""

    entry: Entry
    folder: Path
    server: PostgresServer | None
    _environment: dict[str, str] = field(default_factory=dict)
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _books: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _sink: subprocess.Popen[bytes] | None = None
    _redis: Redis | None = None
    _endpoint: RedisEndpoint | None = None
    _log: IO[bytes] | None = None
    _feed: Feed | None = None
    _tally: Tally | None = None
    _database: Sqlite | Postgres | None = None
    _journal: Journal | None = None

    def start(self) -> None:
        """Start everything, and wait until the warm-up is through.

        Raises:
            TimeoutError: it does not get through.
        """
        self.folder.mkdir(parents=True)
        self._log = (self.folder / "log").open("ab")
        port = self._start_sink() if self.entry.workers else "9"
        self._endpoint = endpoint = ensure_redis(self.folder / "redis", SystemClock())
        self._redis = Redis.from_url(endpoint.url)
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": endpoint.url}
        self._environment |= {"SINK_URL": f"http://127.0.0.1:{port}", **self._own(port)}
        self._start_workers()
        self._feed = Feed(self._python, self.entry.kind.module, self._environment, self.folder, self._log)
        if not self.entry.workers:
            self._feed.fill(WARM_UP)
            return
        # Alone: the first order of ours opens the account's books, and who comes meanwhile waits for the sweeper.
        self._feed.fill(1)
        self._wait(self._is_through, "do its first job")
        self._start_more_workers()
        self._feed.fill(WARM_UP)
        self._wait(self._is_through, "warm up")
        if self.entry.books:
            self._wait(self._is_booked, "book its first orders")

    @property
    def environment(self) -> Mapping[str, str]:
        """What its processes are told, once it has started."""
        return self._environment

    def measure(self, jobs: int) -> Run:
        """Have `jobs` jobs wait, let the workers go, and measure until the last one's outcome is where it belongs."""
        with _Stopped(self._workers) as held:
            self._fed.fill(jobs)
            before = self._spent()
            started_s = time.perf_counter()
            held.release()
            self._wait(self._is_through, "finish a run")
            took_s = time.perf_counter() - started_s
            time.sleep(SETTLE_S)
            spent = {name: (value - before[name]) / jobs for name, value in self._spent().items()}
        self._see_all_filled()
        return Run(
            jobs_per_s=jobs / took_s,
            cpu_ms_per_job=spent["workers_s"] * 1000,
            server_cpu_ms_per_job=spent["servers_s"] * 1000,
            commands_per_job=spent["commands"],
            reads_per_job=spent["reads"],
        )

    def measure_booked(self, jobs: int) -> float:
        """Return the orders per second when all queues are worked on, an order counting when it is booked."""
        with _Stopped([*self._workers, *self._books]) as held:
            self._fed.fill(jobs)
            started_s = time.perf_counter()
            held.release()
            self._wait(self._is_booked, "book a run", BOOKED_LOOK_S)
            return jobs / (time.perf_counter() - started_s)

    def count_commits(self, jobs: int) -> float | None:
        """Return how often a job commits to the database; None: it has none."""
        if self._database is None:
            return None
        with _Stopped(self._workers) as held:
            count = self._database.commit_counter()
            self._fed.fill(jobs)
            before = count()
            held.release()
            self._wait(self._is_through, "finish what is counted")
            time.sleep(SETTLE_S * 4)
            return (count() - before) / jobs

    def measure_delays(self, jobs: int, per_s: int) -> Delays:
        """Enqueue so many a second on an idle system; return how long each took to the exchange."""
        told = self._fed.paced(jobs, per_s)
        self._wait(self._is_through, "finish what was paced")
        arrived: dict[str, float] = self._ask_sink("arrived")
        return Delays(
            from_begin_s=[arrived[name] - began for name, began, _ in told],
            from_end_s=[arrived[name] - ended for name, _, ended in told],
        )

    def measure_enqueue(self, singly: int, batch: int) -> Enqueued:
        """Enqueue with nobody working; return the rates."""
        return Enqueued(singly_per_s=singly / self._fed.singly(singly), batch_per_s=batch / self._fed.fill(batch))

    def rest(self) -> None:
        """Be quiet until the next turn. Other idle workers take a thousandth of a processor, and are left alone."""
        if self.entry.kind.is_restless:
            _signal(self._workers, signal.SIGSTOP)

    def stop(self) -> None:
        """End everything and drop its data."""
        if self._feed is not None:
            self._feed.stop()
        for process in [*self._workers, *self._books]:
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

    @property
    def endpoint(self) -> RedisEndpoint | None:
        """Its Redis, once that runs."""
        return self._endpoint

    @property
    def _fed(self) -> Feed:
        assert self._feed is not None
        return self._feed

    @property
    def _python(self) -> Path:
        return Path(sys.executable) if self.entry.kind.is_ours else venv.PYTHON

    def _start_sink(self) -> str:
        port_file, count_file = self.folder / "port", self.folder / "count"
        self._tally = Tally(count_file)
        command = [
            sys.executable,
            "-m",
            "bench.throughput.sink",
            str(port_file),
            str(count_file),
            str(self.entry.answer_ms),
        ]
        self._sink = subprocess.Popen(command, cwd=ROOT)
        return str(self._wait(lambda: port_file.exists() and port_file.read_text(encoding="ascii"), "have its sink"))

    def _own(self, port: str) -> Mapping[str, str]:
        """Return the settings of this kind alone, its database made."""
        kind = self.entry.kind
        if kind.database is None:
            return {}
        url = f"sqlite:///{self.folder / 'journal.db'}"
        if kind.database == "SQLite":
            self._database = Sqlite(self.folder / "journal.db")
        else:
            assert self.server is not None
            self._database = Postgres(self.server, f"bench_{self.entry.name}")
            url = self._database.url
        if not kind.is_ours:
            return {"DATABASE_URL": url}
        self._journal = Journal(self._database.ask)
        return {
            "DATABASE_URL": url.replace("postgresql:", "postgresql+psycopg:"),
            "TRADING_MODE": "paper", "FILLONCE_HOME": str(self.folder / "home"),
            "FILLONCE_CONFIG": str(ROOT / "config"), "BINANCE_FUTURES_URL": f"http://127.0.0.1:{port}/fapi",
            "BINANCE_SPOT_URL": f"http://127.0.0.1:{port}/api", "BINANCE_API_KEY": "key",
            "BINANCE_API_SECRET": "secret",
        }  # fmt: skip

    def _start_workers(self) -> None:
        """Start the first worker and what belongs to it."""
        if self.entry.workers:
            self._workers.append(self._spawn(self.entry.kind.command, 0))
        if self.entry.books:
            self._books.append(self._spawn(("{bin}/python", "-m", "bench.throughput.books"), 0))
        if self.entry.kind.tells_ready:
            self._wait((self.folder / "dbos-ready").exists, "get ready")

    def _start_more_workers(self) -> None:
        for number in range(1, self.entry.workers):
            self._workers.append(self._spawn(self.entry.kind.command, number))

    def _spawn(self, command: Sequence[str], number: int) -> subprocess.Popen[bytes]:
        words = {"n": str(number), "redis": self._environment["REDIS_URL"], "bin": str(self._python.parent)}
        return subprocess.Popen(
            [part.format(**words) for part in command], env=self._environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def _done_count(self) -> int:
        assert self._tally is not None
        return self._tally.get()

    def _is_through(self) -> bool:
        """Whether every order has arrived and, of ours, has its outcome in the journal.

        The journal is only asked once all have arrived: asking it all the time would be at the cost of the workers.
        """
        return self._done_count() >= self._fed.sent and (self._journal is None or self._journal.open_count() == 0)

    def _is_booked(self) -> bool:
        return self._is_through() and (self._journal is None or self._journal.unbooked_count() == 0)

    def _see_all_filled(self) -> None:
        """See that every order has come to the end that it should: a wrong one must not count as a quick one."""
        if self._journal is not None and (wrong := self._journal.not_filled_count()):
            raise RuntimeError(f"{wrong} orders of {self.entry.name} are not FILLED")

    def _ask_sink(self, what: str) -> Any:
        url = f"{self._environment['SINK_URL']}/sink/{what}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback http
            return json.load(answer)

    def _spent(self) -> dict[str, float]:
        assert self._redis is not None
        assert self._endpoint is not None
        told: Any = self._redis.info("stats")
        servers = {self._endpoint.pid}
        if isinstance(self._database, Postgres):
            servers.add(self._database.server.pid)
        return {
            "workers_s": cpu.seconds_of(sessions={process.pid for process in self._workers}),
            "servers_s": cpu.seconds_of(trees=servers),
            "commands": float(told["total_commands_processed"]),
            "reads": float(told["total_reads_processed"]),
        }

    def _wait(self, look: Callable[[], Any], what: str, pause_s: float = LOOK_S) -> Any:
        deadline_s = time.monotonic() + LONGEST_S
        while not (found := look()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.entry.kind.name} did not {what} within {LONGEST_S} s: {self._last_words()}")
            time.sleep(pause_s)
        return found

    def _last_words(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-600:] or "it said nothing"


class _Stopped:
    """Processes that are stopped until they are released, or the block is over."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = list(processes)

    def __enter__(self) -> Self:
        _signal(self._processes, signal.SIGSTOP)
        return self

    def release(self) -> None:
        """Let them go."""
        _signal(self._processes, signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        self.release()


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        os.killpg(process.pid, number)
