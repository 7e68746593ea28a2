"""kill -9 at every fault point while the exchange answers in every way it can: nothing twice, nothing lost.

Here every point and every mode has its turn; `make chaos` runs every pair. Both come from the enums of the product: a
new point or a new answer is a new case by itself.
"""

from random import Random

import pytest

from app.exchange.paper.canned import CannedReply
from app.exchange.paper.faults import FaultAction
from app.job_safety.faults import FaultPoint
from tests.chaos import plans
from tests.chaos.faults import ACTIONS_WITH_REPLY, dealt, matrix, modes
from tests.chaos.plans import Place
from tests.chaos.table import render

SEED = 20261121
ROUNDS = 3
VENUES = ("usdm", "usdm", "spot")


@pytest.mark.timeout(300)
def test_nothing_is_duplicated_lost_stranded_or_misbooked_at_any_point_and_any_answer(place: Place) -> None:
    shuffled = modes()
    Random(SEED).shuffle(shuffled)
    print(f"seed {SEED}: {', '.join(mode.name for mode in shuffled)}")
    rounds = [shuffled[start::ROUNDS] for start in range(ROUNDS)]
    sample = plans.run_matrix(place, rounds, name="matrix", venues=VENUES)
    assert sample.is_good, render({"matrix": sample})
    assert sample.kills == ROUNDS * len(FaultPoint)
    for mode in modes():
        assert sample.struck[f"answer {mode.name}"] >= 1, mode.name


def test_every_action_and_reply_of_the_exchange_is_part_of_the_matrix() -> None:
    assert {mode.action for mode in modes()} == set(FaultAction)
    assert {mode.canned for mode in modes() if mode.action in ACTIONS_WITH_REPLY} == set(CannedReply)
    assert {point for point, _ in matrix()} == set(FaultPoint)


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_all_seeds_together_run_every_pair_once(seeds: int) -> None:
    names = [mode.name for seed in range(seeds) for mode in dealt(seed, seeds)]
    assert sorted(names) == sorted(mode.name for mode in modes())
    assert len(set(names)) == len(names)
