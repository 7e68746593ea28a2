"""The stores and services of an installation as one process reaches them: each request is a point of the schedule."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import Connection

from app.clock import from_ms
from app.delivery import Parcel
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.faults import FaultPoint
from app.job_safety.side_effect_guard import GuardNames, Token
from app.journal.prepared import Bound, counts_if_first
from tests.safety.simulation.scheduler import Process

if TYPE_CHECKING:
    from tests.safety.simulation.world import World

T = TypeVar("T")

NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")


class BrokenOffError(Exception):
    """What a process has written is rolled back, and it is told nothing; only scripts ask for it, of a `make`."""


class ClockOf:
    """The clock as a process sees it: while it sleeps the world goes on."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.now_ms = world.local_ms
        self.monotonic = world.clock.monotonic

    def now(self) -> datetime:
        return from_ms(self.now_ms())

    def sleep(self, seconds: float) -> None:
        self._world.pass_time(round(seconds * 1000))


class JournalOf:
    """The journal as one process reaches it."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        world, process = self._world, self._process
        fault = process.point("journal:begin")
        if fault == "down":
            raise StoreUnavailableError("journal: down, says the driver")
        world.writer = process
        try:
            with world.journal.write() as connection:
                yield connection
                if fault == "broken_off":
                    raise BrokenOffError
                if fault == "commit_lost":
                    raise StoreUnavailableError("journal: the commit did not arrive, says the driver")
        finally:
            world.writer = None
        world.commits += 1
        if process.point("journal:committed") == "answer_lost":
            raise StoreUnavailableError("journal: the answer of the commit was lost, says the driver")

    def make(self, change: Callable[[Connection], T], *, kept_open: bool = False) -> T:
        del kept_open
        with contextlib.suppress(BrokenOffError), self.write() as connection:
            return change(connection)
        with self.write() as connection:  # as after an error of another change that it was made with
            return change(connection)

    def at_once(self, first: Bound, *also: Bound) -> list[int] | None:
        return self.make(lambda connection: counts_if_first(connection, first, *also))

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        self._process.check_alive()
        with self._world.journal.read() as connection:
            yield connection

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection]:
        self._process.check_alive()
        with self._world.journal.look() as connection:
            yield connection


class RedisOf:
    """Redis as one process reaches it."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process

    def register_script(self, source: str) -> Callable[..., Any]:
        run = self._world.redis.script(source)
        return lambda keys, args: self._do("script", lambda: run(keys, args))

    def get(self, key: str) -> bytes | None:
        # Inside a transaction nobody else could run anyway, so this is no point.
        self._process.check_alive()
        return self._world.redis.get(key)

    def pttl(self, key: str) -> int:
        self._process.check_alive()
        return self._world.redis.pttl(key)

    def _do(self, name: str, act: Callable[[], Any]) -> Any:
        fault = self._process.point(f"redis:{name}")
        if fault == "down":
            raise RedisConnectionError("down, says the driver")
        answer = act()
        if fault == "answer_lost":
            raise RedisConnectionError("the answer was lost, says the driver")
        return answer


class DeliveryOf:
    """The queue: what it is given is written down, and the driver delivers when, if and as often as it likes."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process

    def deliver(self, parcels: Sequence[Parcel], *, force: bool = False) -> int:
        self._process.check_alive()
        self._world.queued += parcels
        return len(parcels)


class RecorderOf:
    def __init__(self, world: "World") -> None:
        self._world = world

    def event(self, name: str, **_fields: object) -> None:
        self._world.events.append(name)

    def alarm(self, name: str, **_fields: object) -> None:
        self._world.events.append(f"alarm_{name}")


class LeasesOf:
    """The lease keeper: `World.pass_time` renews for the living."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process

    @contextlib.contextmanager
    def keep(self, effect_type: str, key: str, token: Token, _told: object = None) -> Iterator[None]:
        self._world.leases[token] = (self._process, NAMES.guard(effect_type, key))
        try:
            yield
        finally:
            self._world.leases.pop(token, None)


class FaultsOf:
    """Every fault point is a point of the schedule."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world, self._process = world, process

    def may_strike(self, _point: FaultPoint) -> bool:
        return True

    def hit(self, point: FaultPoint) -> None:
        if point is FaultPoint.IN_DISPATCH_TRANSACTION:
            self._world.watch.dispatching()
        self._process.point(f"fault:{point}")
