"""What each strike of a storm does. A strike counts only once it is seen to have had an effect."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import func, select

from app.execution.parcels import parcel_of
from app.job_safety.errors import StoreUnavailableError
from app.journal import intents, schema
from tests.chaos.crowd import submit_twentyfold
from tests.chaos.databases import OwnPostgres, sqlite_locked
from tests.chaos.faults import LAG, Strike, bad_answers
from tests.chaos.proxy import LossyProxy
from tests.chaos.runner import LEASE_S, Arena, Result
from tests.chaos.sentinel import RedisUnderSentinel
from tests.chaos.supervised import clock_mark
from tests.chaos.workload import market
from tests.support.redis_server import RedisServer

OUTAGE_S = 1.5
ANSWERS_S = 4.0
ANSWERS_PATIENCE_S = 30.0
SYNC_S = 1.0
FULL_DISK_BYTES = 4_096
"""Beyond this nothing can be written into a file; journal and logs are longer by then."""


@dataclass(slots=True)
class Strikes:
    """Strikes, and the repairs that put right again what they have broken, each with its time."""

    one: Arena
    redis: RedisServer | RedisUnderSentinel
    random: Random
    proxy: LossyProxy | None = None
    postgres: OwnPostgres | None = None
    clock_file: Path | None = None
    outage_s: float = OUTAGE_S
    lock_s: float = OUTAGE_S
    result: Result = field(default_factory=Result)
    repairs: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    rules: list[dict[str, Any]] = field(default_factory=list)
    exchange_ahead_ms: int = 0

    def strike(self, strike: Strike) -> bool:
        """Strike once; return whether there was something to strike. Counts what has struck."""
        act: Callable[[], bool | None] = getattr(self, f"_{strike.name.lower()}")
        struck = act()
        if struck:
            self.result.struck[strike] += 1
        return struck is not False

    def repair(self) -> None:
        """Put right what is due."""
        now = time.monotonic()
        due = [repair for at, repair in self.repairs if at <= now]
        self.repairs = [(at, repair) for at, repair in self.repairs if at > now]
        for repair in due:
            repair()

    def calm(self) -> None:
        """End what has no end of its own."""
        self.held.close()
        self.one.here.exchange.faults()
        if self.proxy is not None:
            self.proxy.lose_answers(0)
        if self.clock_file is not None:
            self.clock_file.write_text("0")

    def _later(self, seconds: float, repair: Callable[[], object]) -> None:
        self.repairs.append((time.monotonic() + seconds, repair))

    # Each returns whether it has struck; None: that is seen later, and counted then

    def _kill_child(self) -> bool:
        chosen = self._least_struck("kill -9 of")
        return chosen is not None and self._signal(chosen, "kill -9 of", self.one.kill_child)

    def _stop_child(self) -> bool:
        chosen = self._least_struck("SIGSTOP of")
        if chosen is None:
            return False
        self._later(3 * LEASE_S, lambda: _continue(chosen[1]))
        return self._signal(chosen, "SIGSTOP of", lambda pid: os.kill(pid, signal.SIGSTOP))

    def _least_struck(self, what: str) -> tuple[str, int] | None:
        """Return the role, and one process of it, whose turn it is: whatever roles the supervisor has."""
        found = [(label.rpartition("-")[0], pid) for label, pid in self.one.roles().items()]
        self.random.shuffle(found)
        return min(found, key=lambda one: self.result.struck[f"{what} {one[0]}"], default=None)

    def _signal(self, chosen: tuple[str, int], what: str, send: Callable[[int], None]) -> bool:
        role, pid = chosen
        try:
            send(pid)
        except ProcessLookupError:
            return False
        self.result.struck[f"{what} {role}"] += 1
        return True

    def _kill_supervisor(self) -> bool:
        if not self.one.children():
            return False
        orphans = self.one.kill_supervisor()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in orphans):
            if time.monotonic() > deadline:
                self.result.findings.other.append(f"children outlived their supervisor: {orphans}")
                break
            time.sleep(0.01)
        self.one.start()
        return True

    def _kill_exchange(self) -> bool:
        self.one.here.exchange.kill()
        self.one.here.exchange.start()
        self.one.here.exchange.faults(*self.rules)  # it has forgotten them
        if self.exchange_ahead_ms:
            self._set_exchange_clock()
        return True

    def _kill_redis(self) -> bool:
        if not self.redis.is_running():
            return False
        self.redis.kill()
        self._later(0.5, self.redis.start)
        return True

    def _flush_redis(self) -> bool:
        return self._told_redis(lambda client: client.flushall())

    def _stop_redis(self) -> bool:
        if not self.redis.is_running():
            return False
        self.redis.pause()
        self._later(self.outage_s, self.redis.resume)
        return True

    def _full_redis(self) -> bool:
        """Take its memory away until somebody was refused for it."""
        before = self._refused_for_memory()
        if before is None or not self._told_redis(lambda client: client.config_set("maxmemory", "1")):
            return False
        self._later(OUTAGE_S, self._give_redis_memory)
        return _soon(lambda: (self._refused_for_memory() or 0) > before, OUTAGE_S)

    def _refused_for_memory(self) -> int | None:
        try:
            with self.redis.client(timeout_s=1) as client:
                return int(client.info("errorstats").get("errorstat_OOM", {}).get("count", 0))
        except RedisError:
            return None

    def _give_redis_memory(self) -> None:
        if not self._told_redis(lambda client: client.config_set("maxmemory", "0")):
            self._later(0.3, self._give_redis_memory)  # it is stopped or dead itself just now

    def _told_redis(self, tell: Callable[..., object]) -> bool:
        try:
            with self.redis.client(timeout_s=1) as client:
                tell(client)
        except RedisError:
            return False
        return True

    def _lose_redis_answers(self) -> bool:
        assert self.proxy is not None
        before = self.proxy.lost
        self.proxy.lose_answers(3 + self.random.randrange(10))
        return _soon(lambda: self.proxy is not None and self.proxy.lost > before, 3)

    def _fail_over_redis(self) -> bool:
        """What is written for a while is in no replica when the master dies."""
        assert isinstance(self.redis, RedisUnderSentinel)
        self.redis.forget_from_now_on()
        with self.redis.client() as client:
            client.set("chaos:forgotten", time.time_ns())
            told = client.get("chaos:forgotten")
        for _ in range(3):
            self.one.submit([market(f"forgotten-{time.monotonic_ns()}")])
            time.sleep(0.1)
        self.redis.fail_over()
        with self.redis.client() as client:
            return client.get("chaos:forgotten") != told

    def _kill_database(self) -> bool:
        assert self.postgres is not None
        if not self.postgres.is_running():
            return False
        self.postgres.kill()
        self._later(0.4, self.postgres.start)
        return True

    def _lock_database(self) -> bool:
        path = Path(str(self.one.here.installation.journal.url.database))
        self.held.enter_context(sqlite_locked(path, self.lock_s))
        return True

    def _fill_disk(self) -> bool:
        """Let no process of ours write into a file; while that is so, no order may leave."""
        self._limit_files(FULL_DISK_BYTES)
        time.sleep(SYNC_S)  # what was being synced is settled, or is in doubt from now on
        before = self._dispatched()
        self.one.submit([market(f"disk-full-{time.monotonic_ns()}")])
        time.sleep(OUTAGE_S)
        has_struck = bool(self.one.children())
        if self._dispatched() != before:
            self.result.findings.other.append("an order was dispatched while the disk was full")
        self._limit_files(resource.RLIM_INFINITY)
        return has_struck

    def _limit_files(self, size: int) -> None:
        """Limit the supervisor first: who is forked from then on is limited too."""
        assert self.one.supervisor is not None
        _limit_files(self.one.supervisor.pid, size)
        for pid in self.one.children():
            _limit_files(pid, size)

    def _dispatched(self) -> int:
        with self.one.here.installation.journal.read() as connection:
            return int(connection.execute(select(func.count()).select_from(schema.attempts)).scalar_one())

    def _answer_badly(self) -> bool | None:
        if self.rules:
            return False  # one after the other
        self.rules = bad_answers(self.random)
        self.one.here.exchange.faults(*self.rules)
        patience = time.monotonic() + ANSWERS_PATIENCE_S
        self._later(ANSWERS_S, lambda: self._answer_well(patience))
        return None

    def _answer_well(self, patience: float) -> None:
        """End it once an order was answered badly; that reads lag is not enough."""
        told = self.one.here.exchange.control("GET", "faults")["rules"]
        has_struck = any(rule["struck"] for rule in told if rule["name"] != LAG)
        if not has_struck and time.monotonic() < patience:
            self._later(1.0, lambda: self._answer_well(patience))
            return
        self.one.here.exchange.faults()
        self.rules = []
        self.result.struck.update({f"answer {rule['name']}": rule["struck"] for rule in told})
        self.result.struck[Strike.ANSWER_BADLY] += has_struck

    def _move_exchange_clock(self) -> bool:
        self.exchange_ahead_ms += 5_000
        self._set_exchange_clock()
        return True

    def _set_exchange_clock(self) -> None:
        self.one.here.exchange.control("POST", "clock", {"offset_ms": self.exchange_ahead_ms})

    def _clock_ahead(self) -> bool:
        self._later(3.0, lambda: self._set_clock(0))
        return self._set_clock(5_000)

    def _clock_behind(self) -> bool:
        self._later(3.0, lambda: self._set_clock(0))
        return self._set_clock(-5_000)

    def _clock_jumps(self) -> bool:
        seen = [self._set_clock(self.random.randrange(-5_000, 5_000)) for _ in range(5)]
        self._set_clock(0)
        return all(seen)

    def _set_clock(self, offset_ms: int) -> bool:
        assert self.clock_file is not None
        mark = clock_mark(self.clock_file, offset_ms)
        mark.unlink(missing_ok=True)
        self.clock_file.write_text(str(offset_ms))
        return _soon(mark.exists, 2) or offset_ms == 0

    def _submit_twentyfold(self) -> bool:
        return submit_twentyfold(self.one, market(f"crowd-{time.monotonic_ns()}")) > 1

    def _replay_queue(self) -> bool:
        """Deliver again what was delivered before, finished or not."""
        here = self.one.here.installation
        keys = self.random.sample(sorted(self.one.wishes), min(8, len(self.one.wishes)))
        try:
            with here.journal.read() as connection:
                parcels = [parcel_of(intents.load(connection, key)) for key in keys]
            return here.delivery.deliver(parcels * 2, force=True) > 0
        except StoreUnavailableError:
            return False


def _soon(look: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _limit_files(pid: int, size: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size >= 0 else most, most))


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
