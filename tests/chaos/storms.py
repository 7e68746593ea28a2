"""A storm: a workload goes on while a seeded schedule of strikes breaks one thing after the other."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from redis.exceptions import RedisError

from tests.chaos.databases import OwnPostgres, sqlite_locked
from tests.chaos.faults import KILLS, Planned, bad_answers
from tests.chaos.proxy import RedisProxy
from tests.chaos.runner import LEASE_S, Arena, Result
from tests.chaos.workload import Workload
from tests.support.redis_server import RedisServer

SUBMIT_EVERY_S = 0.15
OUTAGE_S = 1.5
PATIENCE_S = 40
"""For how long a strike that found nothing to strike is tried again."""


@dataclass(slots=True)
class Storm:
    """One run. `repairs` are what puts right again what a strike has broken, each with its time."""

    one: Arena
    redis: RedisServer
    random: Random
    proxy: RedisProxy | None = None
    postgres: OwnPostgres | None = None
    clock_file: Path | None = None
    outage_s: float = OUTAGE_S
    result: Result = field(default_factory=Result)
    repairs: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, planned: list[Planned], *, expected_alarms: tuple[str, ...] = (), rest_s: int = 90) -> Result:
        """Strike as planned under load, put everything right, wait for rest, and return what was found."""
        wishes = iter(Workload(self.random))
        waiting = list(islice(wishes, 4))
        started = time.monotonic()
        next_wish = 0.0
        left = list(planned)
        while left or self.repairs:
            now = time.monotonic() - started
            self._repair()
            if left and now >= left[0].at_s:
                self._strike(left, now)
            if left and now >= next_wish:
                next_wish = now + SUBMIT_EVERY_S
                waiting += islice(wishes, 1)
                # What could not be journaled was not promised: it is submitted again, as a producer would.
                waiting = [group for group in waiting if not self.one.submit(group)]
            self.one.end_pauses()
            time.sleep(0.02)
        self._calm()
        while waiting:
            waiting = [group for group in waiting if not self.one.submit(group)]
        self.one.rest(timeout_s=rest_s)
        self.result.add(self.one.result(expected_alarms=expected_alarms))
        self.result.not_struck += [str(one) for one in {plan.strike for plan in planned} if not self.result.struck[one]]
        return self.result

    def _strike(self, left: list[Planned], now_s: float) -> None:
        planned = left.pop(0)
        strike: Callable[[int], bool] = getattr(self, f"_{planned.strike.name.lower()}")
        if strike(planned.number):
            self.result.struck[planned.strike] += 1
            self.result.kills += planned.strike in KILLS
        elif now_s < planned.at_s + PATIENCE_S:
            # There was nobody to strike, such as right after the supervisor's death: what comes next comes first.
            left.insert(min(1, len(left)), planned)

    def _repair(self) -> None:
        now = time.monotonic()
        due = [repair for at, repair in self.repairs if at <= now]
        self.repairs = [(at, repair) for at, repair in self.repairs if at > now]
        for repair in due:
            repair()

    def _later(self, seconds: float, repair: Callable[[], object]) -> None:
        self.repairs.append((time.monotonic() + seconds, repair))

    def _calm(self) -> None:
        self.held.close()
        self.one.here.exchange.faults()
        if self.proxy is not None:
            self.proxy.lose_answers(0)
        if self.clock_file is not None:
            self.clock_file.write_text("0")

    # The strikes: each returns whether it has struck

    def _kill_child(self, number: int) -> bool:
        pids = [pid for role, pid in self.one.roles().items() if not role.startswith("keeper")]
        if pids:
            self.one.kill_child(pids[number % len(pids)])
        return bool(pids)

    def _kill_keeper(self, _number: int) -> bool:
        pids = [pid for role, pid in self.one.roles().items() if role.startswith("keeper")]
        for pid in pids:
            self.one.kill_child(pid)
        return bool(pids)

    def _kill_supervisor(self, _number: int) -> bool:
        orphans = self.one.kill_supervisor()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in orphans):
            if time.monotonic() > deadline:
                self.result.findings.other.append(f"children outlived their supervisor: {orphans}")
                break
            time.sleep(0.01)
        self.one.start()
        return True

    def _kill_exchange(self, _number: int) -> bool:
        self.one.here.exchange.kill()
        time.sleep(0.2)
        self.one.here.exchange.start()
        return True

    def _stop_child(self, number: int) -> bool:
        pids = [pid for role, pid in self.one.roles().items() if not role.startswith("keeper")]
        if not pids:
            return False
        pid = pids[number % len(pids)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._later(3 * LEASE_S, lambda: _continue(pid))
        return True

    def _kill_redis(self, _number: int) -> bool:
        if not self.redis.is_running():
            return False
        self.redis.kill()
        self._later(0.5, self.redis.start)
        return True

    def _flush_redis(self, _number: int) -> bool:
        return self._told_redis(lambda client: client.flushall())

    def _stop_redis(self, _number: int) -> bool:
        if not self.redis.is_running():
            return False
        self.redis.pause()
        self._later(self.outage_s, self.redis.resume)
        return True

    def _full_redis(self, _number: int) -> bool:
        if not self._told_redis(lambda client: client.config_set("maxmemory", "1")):
            return False
        self._later(self.outage_s, self._give_redis_memory)
        return True

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

    def _lose_redis_answers(self, number: int) -> bool:
        assert self.proxy is not None
        before = self.proxy.lost
        self.proxy.lose_answers(3 + number % 10)
        deadline = time.monotonic() + 3
        while self.proxy.lost == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.proxy.lost > before

    def _kill_database(self, _number: int) -> bool:
        assert self.postgres is not None
        self.postgres.kill()
        self.postgres.start()
        return True

    def _lock_database(self, _number: int) -> bool:
        path = Path(str(self.one.here.installation.journal.url.database))
        self.held.enter_context(sqlite_locked(path, self.outage_s))
        return True

    def _answer_badly(self, _number: int) -> bool:
        exchange = self.one.here.exchange
        exchange.faults(*bad_answers(self.random))

        def count() -> None:
            with contextlib.suppress(OSError):
                self.result.struck.update(
                    {f"answer {rule['name']}": rule["struck"] for rule in exchange.control("GET", "faults")["rules"]}
                )
                exchange.faults()

        self._later(4.0, count)
        return True

    def _move_exchange_clock(self, number: int) -> bool:
        self.one.here.exchange.control("POST", "clock", {"offset_ms": (-5_000, 5_000, 0)[number % 3]})
        return True

    def _move_local_clock(self, number: int) -> bool:
        assert self.clock_file is not None
        self.clock_file.write_text(("-5000", "5000", "0")[number % 3])
        return True


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
