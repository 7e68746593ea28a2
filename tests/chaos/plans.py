"""Whole runs, each with everything that it needs: matrix, recovery, zombies, storms. Tests and campaign call them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from app.job_safety.faults import FaultPoint
from tests.chaos import rounds
from tests.chaos.crowd import PRODUCERS, TIMES, deliver, submit_twentyfold
from tests.chaos.databases import OwnPostgres
from tests.chaos.faults import Mode, Strike, storm
from tests.chaos.proxy import LossyProxy
from tests.chaos.runner import Result, arena
from tests.chaos.sentinel import RedisUnderSentinel
from tests.chaos.storms import run_storm as run_strikes
from tests.chaos.strikes import OUTAGE_S, Strikes
from tests.chaos.supervised import CLOCK_FILE
from tests.chaos.workload import market
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer

S = Strike
RACE = "20 workers on one intent"
POINTS = tuple(FaultPoint)
PAUSE_S = 0.5
REAL_HORIZONS = """
sweep: {interval_ms: 200}
poll: {interval_ms: 200, weight_share: "0.9"}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where runs take place; the processes in it are shared by one run after the other."""

    folder: Path
    redis: RedisServer
    nursery: Nursery


def run_matrix(
    place: Place, chosen: Sequence[Sequence[Mode]], *, name: str, orders: int = 8, venues: Sequence[str] = ("usdm",)
) -> Result:
    """Kill at every point, once per round, while the exchange answers in the round's ways; venues take turns."""
    whole = Result()
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan())
        one.warm_up()
        for number, modes in enumerate(chosen):
            whole.add(
                rounds.matrix_round(
                    one, modes, POINTS, name=f"r{number}", orders=max(orders, len(modes)),
                    venue=venues[number % len(venues)],
                )
            )  # fmt: skip
        whole.add(one.result())
    # A round of several modes covers every point and every mode, and not every pair.
    if any(len(modes) > 1 for modes in chosen):
        whole.cases.clear()
    return whole


def run_recovery(place: Place, *, name: str, times: int) -> Result:
    """Kill one worker after the other in the middle of an order, and measure until the order goes on."""
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan())
        one.warm_up()
        whole = rounds.recovery_round(one, name=name, times=times)
        whole.add(one.result())
        return whole


def run_machine_deaths(place: Place, *, name: str, times: int) -> Result:
    """Kill everything on one machine at once, with the real leases and horizons, while another one has no workers."""
    config = REAL_HORIZONS
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery, config=config) as one:
        for queue in ("positions", "ledger", "pnl"):
            one.here.start("worker", queue)
        for keeper in ("sweeper", "reconciler"):
            one.here.start(keeper)
        whole = rounds.machine_round(one, name=name, times=times)
        whole.add(one.result())
        whole.recovery_ms.clear()
        return whole


def run_zombies(place: Place, points: Sequence[FaultPoint], *, name: str) -> Result:
    """Stop workers at fault points for three leases, then let them go on."""
    workers = "orders=4,positions=2,ledger=2,pnl=2"
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery, workers=workers) as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan("stop"))
        one.warm_up()
        whole = rounds.zombie_round(one, points, name=name)
        whole.add(one.result())
        whole.recovery_ms.clear()
        return whole


def run_duplicates(place: Place, *, name: str, workers: int = 20) -> Result:
    """One intent 20 times at once from 4 processes, then met by 20 workers at once, then delivered again when done."""
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        whole = Result()
        crowd, again = market("crowd"), market("again")
        answered = submit_twentyfold(one, crowd)
        whole.struck[S.SUBMIT_TWENTYFOLD] += answered == PRODUCERS * TIMES
        one.submit([again])
        deliver(one, "crowd", workers * 2)
        racing = [one.here.start("worker", "orders", "--burst") for _ in range(workers)]
        whole.struck[RACE] += [worker.wait(120) for worker in racing] == [0] * workers
        one.start()
        whole.findings.stranded += one.rest(timeout_s=60)
        for key in ("crowd", "again"):
            before = one.here.row(key)
            deliver(one, key, workers)
            one.here.until(lambda: one.here.installation.delivery.depth("orders") == 0, "the queue to be worked off")
            if one.here.row(key) != before:
                whole.findings.other.append(f"{key} was changed by a queue entry of the past")
            whole.struck[S.REPLAY_QUEUE] += 1
        whole.add(one.result())
        whole.not_struck += [what for what in (S.SUBMIT_TWENTYFOLD, RACE, S.REPLAY_QUEUE) if not whole.struck[what]]
        return whole


def run_cancels(place: Place, *, name: str, times: int) -> Result:
    """Fill orders between their cancel and its confirmation."""
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        one.start()
        one.warm_up()
        whole = rounds.cancel_round(one, name=name, times=times)
        whole.add(one.result())
        return whole


KILLS_ONLY = {S.KILL_CHILD: 13, S.KILL_SUPERVISOR: 2, S.KILL_EXCHANGE: 1}
REDIS = {S.KILL_REDIS: 3, S.FLUSH_REDIS: 2, S.STOP_REDIS: 1, S.FULL_REDIS: 1, S.LOSE_REDIS_ANSWERS: 2, S.KILL_CHILD: 4,
         S.SUBMIT_TWENTYFOLD: 1, S.REPLAY_QUEUE: 1}  # fmt: skip
SENTINEL = {S.FAIL_OVER_REDIS: 2, S.KILL_CHILD: 4}
POSTGRES = {S.KILL_DATABASE: 4, S.KILL_CHILD: 6, S.KILL_SUPERVISOR: 1, S.ANSWER_BADLY: 2, S.STOP_CHILD: 1}
EVERYTHING = {
    **KILLS_ONLY, S.KILL_REDIS: 2, S.FLUSH_REDIS: 2, S.STOP_REDIS: 1, S.FULL_REDIS: 1, S.LOSE_REDIS_ANSWERS: 2,
    S.STOP_CHILD: 2, S.LOCK_DATABASE: 1, S.FILL_DISK: 1, S.ANSWER_BADLY: 3, S.CLOCK_AHEAD: 1, S.CLOCK_BEHIND: 1,
    S.CLOCK_JUMPS: 1, S.MOVE_EXCHANGE_CLOCK: 1, S.REPLAY_QUEUE: 1,
}  # fmt: skip

PERSISTENCE: Mapping[str, tuple[str, ...]] = {
    "always": ("--appendfsync", "always"),
    "everysec": ("--appendfsync", "everysec"),
    "none": ("--appendonly", "no"),
}
"""How Redis keeps what it is told."""


def run_storm(
    place: Place,
    weights: Mapping[Strike, int],
    *,
    name: str,
    seed: int,
    count: int,
    outage_s: float = OUTAGE_S,
    lock_s: float = OUTAGE_S,
    persistence: str = "everysec",
    pause_s: float = PAUSE_S,
) -> Result:
    """Run a workload through a storm of `count` strikes."""
    random = Random(seed)
    with ExitStack() as stack:
        postgres = None
        if Strike.KILL_DATABASE in weights:
            postgres = OwnPostgres()
            stack.callback(postgres.close)
        proxy = None
        redis: RedisServer | RedisUnderSentinel
        if Strike.FAIL_OVER_REDIS in weights:
            redis = stack.enter_context(RedisUnderSentinel(place.folder / f"{name}-redis"))
            url = redis.url
        else:
            redis = RedisServer(place.folder / f"{name}-redis", options=PERSISTENCE[persistence]).start()
            stack.callback(redis.kill)
            proxy = stack.enter_context(LossyProxy(redis.port))
            url = proxy.url
        one = stack.enter_context(
            arena(
                place.folder / name, redis=redis, nursery=place.nursery, database_url=postgres and postgres.url,
                REDIS_URL=url,
            )
        )  # fmt: skip
        if persistence == "none":
            with redis.client() as client:
                client.config_set("appendonly", "no")
        clock = place.folder / name / "clock"
        clock.write_text("0")
        one.start(**{CLOCK_FILE: str(clock)})
        one.warm_up()
        strikes = Strikes(
            one=one, redis=redis, random=random, proxy=proxy, postgres=postgres, clock_file=clock, outage_s=outage_s,
            lock_s=lock_s,
        )  # fmt: skip
        result = run_strikes(strikes, storm(random, weights, count=count, pause_s=pause_s), random)
        # Where everything is struck at once, deaths are not measured one by one: told, and told apart.
        if weights is KILLS_ONLY:
            result.storm_recovery_ms += result.recovery_ms
        result.recovery_ms.clear()
        if Strike.KILL_REDIS in weights:
            result.struck.update(Counter({f"kill -9 of Redis, persistence {persistence}": result.struck[S.KILL_REDIS]}))
        return result
