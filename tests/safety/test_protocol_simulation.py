"""Search for an interleaving that sends twice, loses an order or books wrongly: the real code, a model of the exchange,
and workers, reconcilers and zombies that are killed, paused and woken at every point where the world can change.
"""

import os
import random
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from redis import Redis

from app.job_safety import scripts
from app.journal.engine import Journal
from tests.safety.simulation import schedule
from tests.safety.simulation.driver import CLOCKS_MS, Run, Setup
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.virtual_redis import VirtualRedis
from tests.safety.simulation.world import World
from tests.support.clock import FakeClock

EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "30"))
"""Runs of each search. `SIMULATION_EXAMPLES=5000 pytest tests/safety/test_protocol_simulation.py --timeout 0` takes
other ones every time; a run is about a hundred steps."""

SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SIMULATION_EXAMPLES" not in os.environ,
    database=None,
    phases=(Phase.generate,),  # a failure is shrunk by `_shrink`, which knows what a choice is
    suppress_health_check=list(HealthCheck),
)
SHRINK_RUNS = int(os.environ.get("SIMULATION_SHRINK_RUNS", "200"))


def _lags(*choices: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Return lags that differ from question to question, or one for all."""
    each = st.lists(st.sampled_from(choices), min_size=len(QUERIES), max_size=len(QUERIES)).map(tuple)
    return each | st.sampled_from([(one,) * len(QUERIES) for one in choices])


def _kinds(*choices: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(choices), min_size=1, max_size=3).map(tuple)


BOUNDED = st.builds(
    Setup,
    kinds=_kinds("open", "long", "reduce", "limit"),
    lags_ms=_lags(0, 300, 2_500, 13_000),
    engine_behind_ms=st.sampled_from((0, 400, 1_000)),
    clock_ahead_ms=st.sampled_from(CLOCKS_MS),
    margin_for=st.sampled_from((None, 1)),
)
UNBOUNDED = st.builds(
    Setup,
    kinds=_kinds("open", "long", "limit"),
    lags_ms=_lags(0, 2_500, 20_000, 90_000),
    engine_behind_ms=st.sampled_from((0, 400, 1_000)),
    clock_ahead_ms=st.sampled_from(CLOCKS_MS),
)
SEEDS = st.integers(0, 2**32 - 1)


def choices_of(seed: int) -> list[int]:
    return schedule.make(random.Random(seed))


def simulate(journal: Journal, setup: Setup, choices: list[int]) -> tuple[Run, Exception | None]:
    world = World(journal)
    run = Run(world=world, setup=setup, choices=choices)
    try:
        run.play()
        run.finish()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is shrunk first, and raised then
        return run, error
    finally:
        world.close()
    return run, None


def search(journal: Journal, setup: Setup, seed: int) -> None:
    """Simulate once; a failure is shrunk to the shortest script that still fails in the same way."""
    choices = choices_of(seed)
    run, error = simulate(journal, setup, choices)
    if error is None:
        return
    for shorter in _shrink(journal, setup, choices, error):
        run, error = shorter
    note(f"{setup}\n" + "\n".join(run.script))
    raise error


def _shrink(journal: Journal, setup: Setup, choices: list[int], error: Exception) -> Iterator[tuple[Run, Exception]]:
    """Leave out ever smaller parts of the choices, as long as the same failure stays; yield what still fails."""
    runs, size = 0, len(choices) // 2
    while size >= 1:
        start = 0
        while start < len(choices) and runs < SHRINK_RUNS:
            shorter = choices[:start] + choices[start + size :]
            run, still = simulate(journal, setup, shorter)
            runs += 1
            if still is not None and str(still)[:20] == str(error)[:20]:
                choices = shorter
                yield run, still
            else:
                start += size
        size //= 2


@SETTINGS
@given(setup=BOUNDED, seed=SEEDS)
def test_nothing_is_sent_twice_lost_or_booked_wrongly_while_the_read_side_lags_within_bounds(
    journal: Journal, setup: Setup, seed: int
) -> None:
    search(journal, setup, seed)


@SETTINGS
@given(setup=UNBOUNDED, seed=SEEDS)
def test_no_opening_order_is_sent_twice_however_far_the_read_side_lags(
    journal: Journal, setup: Setup, seed: int
) -> None:
    """What is closed as expired in the meantime is reopened as soon as its fill is shown."""
    search(journal, setup, seed)


def test_virtual_redis_answers_the_real_scripts_as_a_real_server_does(redis_url: str) -> None:
    """Without expiry, which is the one thing that the stand-in does by another clock."""
    chance = random.Random(1)
    real, virtual = Redis.from_url(redis_url), VirtualRedis(FakeClock())
    for _ in range(600):
        name = chance.choice(("admit", "settle_guard", "pause"))
        guard = chance.choice(("g1", "g2"))
        token = chance.choice(("a#1", "a#2", "b#1"))
        if chance.random() < 0.1:
            word = chance.choice(("false", "TRUE", "reduce_only", "Cancel_Only", "0", ""))
            real.set("kill", word)
            virtual.set("kill", word)
        if chance.random() < 0.05:
            real.flushdb()
            virtual.flushall()
        cases: dict[str, tuple[list[str], list[str | int]]] = {
            "admit": (
                [guard, "kill", "p1", "p2"],
                [token, 10**9, chance.choice(("open", "reduce", "cancel", "book")), chance.choice(("0", "1")), 2],
            ),
            "settle_guard": (
                [guard],
                [token[: chance.choice((2, 3))], *chance.choice((("renew", 10**9), ("release",), ("bury",))), ""]
                if chance.random() < 0.7
                else [token, "done", 10**6, "FILLED"],
            ),
            "pause": ([chance.choice(("p1", "p2"))], ["429:rule", chance.choice((10**8, 10**9))]),
        }
        keys, args = cases[name]
        source = scripts.source(name)
        told = [real.register_script(source)(keys=keys, args=args), virtual.script(source)(keys, args)]
        assert _roughly(told[0]) == _roughly(told[1]), (name, keys, args)
        assert {key: real.get(key) for key in real.keys("*")} == virtual.contents()
    real.close()


def _roughly(answer: object) -> object:
    """Take whole numbers of milliseconds that differ by the time that has really passed for the same."""
    if isinstance(answer, list):
        return [_roughly(item) for item in answer]
    return round(answer, -6) if isinstance(answer, int) and answer > 1_000 else answer
