"""Search for an interleaving that sends twice, loses an order or books wrongly: the real code, a model of the exchange,
and workers, reconcilers and zombies that are killed, paused and woken at every point where the world can change.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from app.journal.engine import Journal
from tests.safety.simulation.driver import Run, Setup
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.world import World, open_fast_journal

EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "150"))
"""More of them search longer: `SIMULATION_EXAMPLES=5000 pytest tests/safety/test_protocol_simulation.py`."""

SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SIMULATION_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
CHOICES = st.lists(st.integers(0, 255), min_size=60, max_size=240)
LAGS = st.tuples(*(st.sampled_from((0, 300, 2_500, 8_000)) for _ in QUERIES))
LONG_LAGS = st.tuples(*(st.sampled_from((0, 2_500, 20_000, 90_000)) for _ in QUERIES))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    opened = open_fast_journal(tmp_path_factory.mktemp("journal"))
    yield opened
    opened.close()


def simulate(journal: Journal, setup: Setup, choices: list[int]) -> Run:
    world = World(journal)
    run = Run(world=world, setup=setup, choices=choices)
    try:
        run.play()
        run.finish()
    finally:
        world.close()
        note(f"{setup}\n" + "\n".join(run.script))
    return run


@SETTINGS
@given(
    kinds=st.lists(st.sampled_from(("open", "long", "reduce", "limit")), min_size=1, max_size=3),
    lags=LAGS,
    engine_behind_ms=st.sampled_from((0, 400, 1_000)),
    margin_for=st.sampled_from((None, 1)),
    choices=CHOICES,
)
def test_nothing_is_sent_twice_lost_or_booked_wrongly_while_the_read_side_lags_within_bounds(
    journal: Journal,
    kinds: list[str],
    lags: tuple[int, ...],
    engine_behind_ms: int,
    margin_for: int | None,
    choices: list[int],
) -> None:
    setup = Setup(kinds=tuple(kinds), lags_ms=lags, engine_behind_ms=engine_behind_ms, margin_for=margin_for)
    simulate(journal, setup, choices)


@SETTINGS
@given(
    kinds=st.lists(st.sampled_from(("open", "long", "limit")), min_size=1, max_size=2),
    lags=LONG_LAGS,
    engine_behind_ms=st.sampled_from((0, 400, 1_000)),
    choices=CHOICES,
)
def test_no_opening_order_is_sent_twice_however_far_the_read_side_lags(
    journal: Journal, kinds: list[str], lags: tuple[int, ...], engine_behind_ms: int, choices: list[int]
) -> None:
    """What is closed as expired in the meantime is reopened as soon as its fill is shown."""
    simulate(journal, Setup(kinds=tuple(kinds), lags_ms=lags, engine_behind_ms=engine_behind_ms), choices)
