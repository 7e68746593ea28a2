"""Whole runs, each with everything that it needs: matrix, recovery, zombies, storms. Tests and campaign call them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from app.job_safety.faults import FaultPoint
from tests.chaos.databases import OwnPostgres
from tests.chaos.faults import Mode, Strike, storm
from tests.chaos.proxy import RedisProxy
from tests.chaos.runner import Result, arena, matrix_round, recovery_round, zombie_round
from tests.chaos.storms import Storm
from tests.chaos.supervised import CLOCK_FILE
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer

POINTS = tuple(FaultPoint)
PAUSE_S = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where runs take place; the processes in it are shared by one run after the other."""

    folder: Path
    redis: RedisServer
    nursery: Nursery


def run_matrix(
    place: Place, rounds: Sequence[Sequence[Mode]], *, name: str, orders: int = 12, venues: Sequence[str] = ("usdm",)
) -> Result:
    """Kill at every point, once per round, while the exchange answers in the round's ways; venues take turns."""
    whole = Result()
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan())
        one.warm_up()
        for number, chosen in enumerate(rounds):
            venue = venues[number % len(venues)]
            whole.add(
                matrix_round(one, chosen, POINTS, name=f"r{number}", orders=max(orders, len(chosen)), venue=venue)
            )
        whole.add(one.result())
    # A round of several modes covers every point and every mode, and not every pair.
    if any(len(chosen) > 1 for chosen in rounds):
        whole.cases.clear()
    return whole


def run_recovery(place: Place, *, name: str, times: int) -> Result:
    """Kill one worker after the other in the middle of an order, and measure until the order goes on."""
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery) as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan())
        one.warm_up()
        whole = recovery_round(one, name=name, times=times)
        whole.add(one.result())
        return whole


def run_zombies(place: Place, points: Sequence[FaultPoint], *, name: str) -> Result:
    """Stop workers at fault points for three leases, then let them go on."""
    with arena(place.folder / name, redis=place.redis, nursery=place.nursery, workers="orders=4") as one:
        one.disarm()
        one.start(FILLONCE_FAULTS=one.plan("stop"))
        one.warm_up()
        whole = zombie_round(one, points, name=name)
        whole.add(one.result())
        return whole


S = Strike
KILLS_ONLY = {S.KILL_CHILD: 12, S.KILL_KEEPER: 2, S.KILL_SUPERVISOR: 2, S.KILL_EXCHANGE: 2}
REDIS = {S.KILL_REDIS: 2, S.FLUSH_REDIS: 2, S.STOP_REDIS: 1, S.FULL_REDIS: 1, S.LOSE_REDIS_ANSWERS: 3, S.KILL_CHILD: 4}
POSTGRES = {S.KILL_DATABASE: 3, S.KILL_CHILD: 6, S.KILL_KEEPER: 1, S.KILL_SUPERVISOR: 1, S.ANSWER_BADLY: 2,
            S.STOP_CHILD: 1}  # fmt: skip
EVERYTHING = {
    **KILLS_ONLY, **REDIS, S.KILL_CHILD: 12, S.STOP_CHILD: 2, S.LOCK_DATABASE: 1, S.ANSWER_BADLY: 4,
    S.MOVE_LOCAL_CLOCK: 1,
}  # fmt: skip


def run_storm(
    place: Place,
    weights: dict[Strike, int],
    *,
    name: str,
    seed: int,
    count: int,
    outage_s: float = 1.5,
    with_persistence: bool = True,
) -> Result:
    """Run a workload through a storm of `count` strikes."""
    random = Random(seed)
    with ExitStack() as stack:
        postgres = None
        if Strike.KILL_DATABASE in weights:
            postgres = OwnPostgres()
            stack.callback(postgres.close)
        redis = place.redis
        if not with_persistence:
            options = ("--appendonly", "no")
            redis = RedisServer(place.folder / f"{name}-redis", options=options).start()
            stack.callback(redis.kill)
        proxy = stack.enter_context(RedisProxy(redis.port))
        one = stack.enter_context(
            arena(
                place.folder / name, redis=redis, nursery=place.nursery, database_url=postgres and postgres.url,
                REDIS_URL=proxy.url,
            )
        )  # fmt: skip
        if not with_persistence:
            with redis.client() as client:
                client.config_set("appendonly", "no")
        clock = place.folder / name / "clock"
        clock.write_text("0")
        one.start(**{CLOCK_FILE: str(clock)})
        one.warm_up()
        run = Storm(
            one=one, redis=redis, random=random, proxy=proxy, postgres=postgres, clock_file=clock, outage_s=outage_s
        )
        result = run.run(storm(random, weights, count=count, pause_s=PAUSE_S))
        if weights is not KILLS_ONLY:
            # Where the stores are down or the clock is wrong, time says nothing about how quickly a death is noticed.
            result.recovery_ms.clear()
        return result
