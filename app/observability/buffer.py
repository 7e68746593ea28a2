"""What one process has counted and not yet added to Redis. Nobody waits for it: a thread adds it, once a second.

A process that is killed loses the counts of its last second; one that ends in order adds them first. What must be right
whatever dies is counted in the journal instead.
"""

import atexit
import json
import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts

FLUSH_S: Final = 1.0
"""For how long a count may wait in the process."""

MARK_S: Final = 5.0
"""For how long an instant may: that a duty was done again says little, and wakes nobody."""

RETRY_S: Final = 5.0
"""How often it is tried again while Redis does not take it; the counts are kept, and go on being added up."""

MAX_FIELDS: Final = 5_000
"""Series per hash in Redis. Far above what the catalog can make; a bound all the same."""

MINUTE_TTL_S: Final = 3 * 3600

SERIES, EVENTS, TIMES, MINUTE = 2, 3, 4, 5
"""The hashes, by the numbers of their keys in `add.lua`."""

Amount: TypeAlias = tuple[int, str, int]
"""Which hash, which field of it, and how much to add; for `TIMES`, the instant to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountNames:
    """Where the counts of one account and mode live in Redis."""

    mode: str
    account: str

    @property
    def events(self) -> str:
        """Hash: event to count."""
        return f"metrics:counters:{self.mode}:{self.account}"

    @property
    def series(self) -> str:
        """Hash: series (JSON: name and label values) to count."""
        return f"metrics:series:{self.mode}:{self.account}"

    @property
    def times(self) -> str:
        """Hash: series to an instant in milliseconds."""
        return f"metrics:times:{self.mode}:{self.account}"

    def minute(self, number: int) -> str:
        """Hash: series to its count within one minute since the epoch."""
        return f"metrics:minute:{self.mode}:{self.account}:{number}"

    def batch(self, name: str) -> str:
        """Marker of a batch that was taken."""
        return f"metrics:batch:{self.mode}:{self.account}:{name}"


def series(name: str, *values: str) -> str:
    """Return the field of a series: its metric's name and its label values, in their order."""
    return json.dumps([name, *values], separators=(",", ":"))


@dataclass(slots=True)
class _Batch:
    name: str
    minute: int
    amounts: dict[tuple[int, str], int]


class CountBuffer:
    """Adds up counts in memory and brings them to Redis in one round trip, beside the work."""

    def __init__(
        self, redis: Redis, names: CountNames, *, now_ms: Callable[[], int], told: Callable[[str], None]
    ) -> None:
        """Make one. `told` hears, now and then, that Redis takes nothing."""
        self._add = redis.register_script(scripts.source("add", package="app.observability"))
        self._names = names
        self._now_ms = now_ms
        self._told = told
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._amounts: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._unsent: _Batch | None = None
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, amounts: Iterable[Amount]) -> None:
        """Take in what one event counts. An instant goes to Redis with the next counts, or within some seconds."""
        if self._pid != os.getpid():
            self._reset()  # a fork: what the parent has counted is the parent's to add, and its thread is not here
        is_urgent = False
        with self._lock:
            for number, field, amount in amounts:
                at = number, field
                if number == TIMES:
                    self._amounts[at] = amount
                else:
                    self._amounts[at] += amount
                    is_urgent = True
        if self._thread is None and not self._closed:
            self._start()
        if is_urgent and not self._wake.is_set():
            self._wake.set()

    def hurry(self) -> None:
        """Bring it to Redis now rather than within a second; does not wait for that."""
        self._hurry.set()
        self._wake.set()

    def close(self) -> None:
        """Bring the rest to Redis and stop. What Redis does not take now is lost."""
        if self._pid != os.getpid():
            self._reset()
        self._closed = True
        self.hurry()
        if self._thread is not None:
            self._thread.join(timeout=RETRY_S)
        self.flush()

    def flush(self) -> bool:
        """Bring what was counted to Redis; return whether nothing is left. One round trip, or none."""
        if self._pid != os.getpid():
            self._reset()
        with self._sending:
            while True:
                batch = self._unsent or self._cut()
                if batch is None:
                    return True
                self._unsent = batch
                arguments: list[str | int] = [MAX_FIELDS, MINUTE_TTL_S]
                for (number, field), amount in batch.amounts.items():
                    arguments += [number, field, amount]
                names = self._names
                keys = [names.batch(batch.name), names.series, names.events, names.times, names.minute(batch.minute)]
                try:
                    self._add(keys=keys, args=arguments)
                except RedisError as error:
                    self._told(str(error))
                    return False
                self._unsent = None

    def _cut(self) -> _Batch | None:
        with self._lock:
            amounts, self._amounts = self._amounts, defaultdict(int)
        if not amounts:
            return None
        return _Batch(name=uuid.uuid4().hex, minute=self._now_ms() // 60_000, amounts=amounts)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, args=(self._pid,), name="counts", daemon=True)
        atexit.register(self._at_exit, self._pid)
        self._thread.start()

    def _at_exit(self, pid: int) -> None:
        if pid == os.getpid() and not self._closed:
            self.close()

    def _run(self, pid: int) -> None:
        wait_s = FLUSH_S
        while not self._closed and pid == os.getpid():
            is_awake = self._wake.wait(MARK_S)
            self._wake.clear()
            if is_awake and not self._closed:
                self._hurry.wait(wait_s)
            self._hurry.clear()
            if self.flush():
                wait_s = FLUSH_S
            else:
                wait_s = RETRY_S
                self._wake.set()
                # A burst of alarms must not turn into a burst of tries while Redis is away.
                time.sleep(FLUSH_S)
