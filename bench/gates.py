"""What guard, breaker and metrics cost an order: with them less without them, pair by pair, on a real Redis.

`python -m bench.gates` (or `make gates`) has one worker end one job and begin the next, over and over, every other time
with all that an order takes of guard, circuit, limits and metrics: the admission is asked for with the beginning and
read, the lease kept, the headers of an answer noted, the order counted, and the guard's end and the circuit's report go
with the end of the job. The other times it does none of that. A pair are two neighbors, and what the order costs is how
much longer the one took: whatever delays one of the two by chance counts in full, so p99 is rather too high than too
low. How much of it is chance tells the same difference of two orders that both go without. A thread brings the counts
to Redis once a second, as in a worker, and what it holds up is in the times. Journal, exchange and the order's log line
are not; the latter is shown beside.

Writes JSON into bench/results/; with `--publish` its table into docs/explanation/performance.md.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO, cast

from app.clock import SystemClock
from app.composition import compose, guard_names
from app.delivery import Claim, Claims, Leavings, Parcel
from app.embedded.redis_server import stop_redis
from app.execution.context import ExecutionContext
from app.job_safety.admission import Admitted, Ahead, Asking, EffectKind, asks_for
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.job_safety.retry_metrics import job_type_of
from app.job_safety.side_effect_guard import Told
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.settings import load_settings
from app.wiring import Installation, connect_redis, open_installation
from bench import machine, output
from bench.percentile import percentile

PAGE: Final = output.EXPLANATION / "performance.md"
LIMIT_MS: Final = 1.0
HEAD: Final = ("ms per order", "p50", "p99", "target of p99", "holds")
TOGETHER: Final = "guard, breaker and metrics together"
VENUE: Final = Venue.USDM
NO_EXCHANGE: Final = {"BINANCE_FUTURES_URL": "http://127.0.0.1:1/fapi", "BINANCE_SPOT_URL": "http://127.0.0.1:1/api"}
"""What is composed wants to know one; nothing asks it."""

LIMITS: Final = tuple(
    Limit(kind=kind, window_ms=window_ms, most=10_000_000)
    for kind, window_ms in (("weight", 60_000), ("orders", 10_000), ("orders", 60_000))
)
"""As many as the exchange has, and so wide that nobody waits: a blocked order would cost less."""

JOBS_PER_PAIR: Final = 4
"""The pair, and two that both go without."""

BLOCK: Final = 50
"""Jobs in a row of one kind, where the time within Redis is taken: it tells the sum of all calls only."""


@dataclass(slots=True, kw_only=True)
class Taken:
    """What an order took, in seconds, order by order."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Processor time of the thread that works."""

    metrics: list[float] = field(default_factory=list)
    """Of the wall time: the counters."""

    line: list[float] = field(default_factory=list)
    """The log line, which is not in the wall time."""

    in_redis: list[float] = field(default_factory=list)
    """Of the wall time: within the script, as Redis itself tells. The mean of a block, and so without a p99."""

    chance: list[float] = field(default_factory=list)
    """How much longer than its neighbor one took where both went without."""


def main() -> int:
    """Measure; exit 1 if the limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--blocks", type=int, default=20, help=f"pairs of {BLOCK} jobs for the time within Redis")
    parser.add_argument("--publish", action="store_true", help="write the table into the documentation")
    asked = parser.parse_args()
    facts = machine.facts()
    with tempfile.TemporaryDirectory(prefix="gates-") as folder:
        taken = measure(Path(folder), pairs=asked.pairs, blocks=asked.blocks)
    path = output.write_json("gates", {"machine": facts, "asked": vars(asked), "seconds": dataclasses.asdict(taken)})
    table = rows(taken)
    sys.stdout.write("\n".join([*output.plain(HEAD, table), *machine.lines(facts), f"written: {path.name}", ""]))
    if asked.publish:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        told = f"Measured on {day} by `python -m bench.gates --pairs {asked.pairs} --blocks {asked.blocks}`, on"
        output.write_page("gates", [*output.markdown(HEAD, table), "", told, "", *machine.lines(facts)], PAGE)
    return 0 if percentile(taken.wall, 99) * 1000 <= LIMIT_MS else 1


def measure(folder: Path, *, pairs: int, blocks: int) -> Taken:
    """Return what guard, breaker and metrics took, on a private Redis in `folder`, synced every second."""
    clock = SystemClock()
    settings = load_settings({"FILLONCE_HOME": str(folder), "HOME": str(folder), **NO_EXCHANGE}, folder)
    with ExitStack() as stack:
        stack.callback(stop_redis, folder, clock)
        here = open_installation(settings, clock)
        stack.callback(here.journal.close)
        log = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        worker = _Worker(here, log)
        stack.callback(worker.close)
        worker.fill(2 * JOBS_PER_PAIR * pairs + 2 * blocks * BLOCK + 1)
        _pairs(worker, pairs)  # the circuit's window is full then, and everything is warm
        taken = _pairs(worker, pairs)
        for _ in range(blocks):
            bare = _in_redis(worker, worker.bare)
            taken.in_redis.append(_in_redis(worker, worker.guarded) - bare)
        return taken


def _pairs(worker: "_Worker", pairs: int) -> Taken:
    taken = Taken()
    for number in range(pairs):
        # Either comes first as often as the other: what slows the machine bit by bit favors neither.
        steps: list[Callable[[], _Step]] = [worker.bare, worker.guarded]
        first, second = (step() for step in (steps if number % 2 else reversed(steps)))
        bare, guarded = (first, second) if number % 2 else (second, first)
        taken.wall.append(guarded.wall - bare.wall)
        taken.cpu.append(guarded.cpu - bare.cpu)
        taken.metrics.append(guarded.metrics)
        taken.line.append(guarded.line)
        taken.chance.append(worker.bare().wall - worker.bare().wall)
    return taken


def _in_redis(worker: "_Worker", step: Callable[[], object]) -> float:
    """Return how long Redis was in a script for each of a block of steps."""
    before_us = worker.script_us()
    for _ in range(BLOCK):
        step()
    return (worker.script_us() - before_us) / BLOCK / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    wall: float
    cpu: float
    metrics: float = 0.0
    line: float = 0.0


class _Worker:
    """Ends a job and begins the next, with or without what guards an order."""

    def __init__(self, here: Installation, log: TextIO) -> None:
        self._here = here
        self._redis = connect_redis(here.redis_url)
        self._context: ExecutionContext = compose(here, "bench")
        self._claims = Claims(
            self._redis, here.delivery, queue=here.delivery.queue_name("orders"), worker="bench", worker_ttl_s=180,
            guards=guard_names(here.settings).guard("order", ""),
        )  # fmt: skip
        told = make_logger(stream=log, owner="bench", mode=here.mode, account=here.account)
        self._record = Recorder(told, here.redis, here.clock, mode=here.mode, account=here.account)
        self._lines = Recorder(told, None, here.clock, mode=here.mode, account=here.account)
        self._claim: Claim | None = None
        self._ahead: Ahead | None = None
        self._count = 0

    def fill(self, jobs: int) -> None:
        """Enqueue so many, and begin the first."""
        asks = asks_for(EffectKind.OPEN, VENUE.value)
        parcels = [Parcel(key=f"order-{n:06d}", type="order", queue="orders", asks=asks) for n in range(jobs)]
        self._here.delivery.deliver(parcels)
        self._context.rate.publish(VENUE, LIMITS)
        self._begun(self._claims.take(self._asking()))

    def bare(self) -> _Step:
        """End the job and begin the next, and nothing else."""
        wall, cpu = time.perf_counter(), time.thread_time()
        self._end(Leavings(), None)
        return _Step(wall=time.perf_counter() - wall, cpu=time.thread_time() - cpu)

    def guarded(self) -> _Step:
        """Do the same with the guard, the circuit and the counters of one order."""
        context, ahead = self._context, self._ahead
        assert ahead is not None
        assert isinstance(ahead.answer, Admitted), f"a gate is closed: {ahead.answer}"
        self._count += 1
        wall, cpu = time.perf_counter(), time.thread_time()
        with context.leases.keep("order", ahead.key, ahead.token):
            context.rate.saw(
                VENUE, used_weight={"1M": self._count}, order_count={"10S": self._count, "1M": self._count}
            )
        metrics = time.perf_counter()
        self._tell(self._record, ahead.key, level="debug")  # counted alike, without a line
        metrics = time.perf_counter() - metrics
        told = Told(
            venue=VENUE, ticket=ahead.answer.ticket, member=f"{ahead.key}:1", weight=0,
            seen=context.rate.take_seen(VENUE),
        )  # fmt: skip
        ending = context.guard.ending("order", ahead.key, ahead.token, "FILLED", told)
        self._begun(self._end(Leavings(guards=[ending]), self._asking()))
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        line = time.perf_counter()
        self._tell(self._lines, ahead.key, level="info")
        return _Step(wall=wall, cpu=cpu, metrics=metrics, line=time.perf_counter() - line)

    def script_us(self) -> int:
        """Return for how many microseconds this Redis has been in scripts, ever."""
        told = cast("Mapping[str, Mapping[str, int]]", self._redis.info("commandstats"))
        return sum(stat["usec"] for name, stat in told.items() if name == "cmdstat_evalsha")

    def close(self) -> None:
        """Bring the last counts home, and hang up."""
        self._record.close()
        self._here.redis.close()
        self._redis.close()

    def _end(self, leavings: Leavings, asking: Asking | None) -> Claim:
        assert self._claim is not None
        _, claim = self._claims.finish(self._claim, "FILLED", leavings, begin_next=True, asking=asking)
        assert claim is not None, "too few jobs were enqueued"
        self._claim = claim
        return claim

    def _asking(self) -> Asking:
        at_s = self._here.clock.monotonic()
        return self._context.admission.ahead("order", [(EffectKind.OPEN, VENUE.value)], at_s=at_s, kill_epoch=0)

    def _begun(self, claim: Claim | None) -> None:
        assert claim is not None
        assert claim.asked is not None, "its admission was not asked for"
        self._claim = claim
        self._ahead = self._context.admission.told(*claim.asked)

    def _tell(self, record: Recorder, key: str, *, level: str) -> None:
        """Leave the trace of an order that is filled at once."""
        record.event("order_finished", level="debug", count=False, key=key, state="FILLED")
        record.event(
            "attempt_settled", level=level, count=False, key=key, attempt=1, state="FILLED", outcome="Accepted",
            fence="1.1", order_id=self._count, took_ms=3.0, age_ms=9, type="order",
            job_type=job_type_of("order", VENUE.value), venue=VENUE.value, symbol="BTCUSDT", side="BUY",
            failure_class=None,
        )  # fmt: skip


def rows(taken: Taken) -> list[list[str]]:
    """Return the table."""
    is_held = percentile(taken.wall, 99) * 1000 <= LIMIT_MS
    in_redis = f"{percentile(taken.in_redis, 50) * 1000:.3f}"
    return [
        [TOGETHER, *_cells(taken.wall), f"{LIMIT_MS:g}", "yes" if is_held else "no"],
        ["by chance alone: the same of two orders without", *_cells(taken.chance), "", ""],
        ["of it, counters", *_cells(taken.metrics), "", ""],
        ["of it, within Redis", in_redis, "", "", ""],
        ["of it, processor time of the worker", *_cells(taken.cpu), "", ""],
        ["beside it, the order's log line", *_cells(taken.line), "", ""],
    ]


def _cells(seconds: Sequence[float]) -> list[str]:
    return [f"{percentile(seconds, percent) * 1000:.3f}" for percent in (50, 99)]


if __name__ == "__main__":
    sys.exit(main())
