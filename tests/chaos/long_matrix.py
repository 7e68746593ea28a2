"""kill -9 at every fault point while the exchange answers in every way it can: nothing twice, nothing lost.

Here every point and every mode has its turn; `make chaos` runs every pair. Both come from the enums of the product: a
new point or a new answer is a new case by itself.
"""

from random import Random

import pytest

from app.job_safety.faults import FaultPoint
from tests.chaos import plans
from tests.chaos.faults import modes
from tests.chaos.plans import Place
from tests.chaos.table import render

SEED = 20261121
ROUNDS = 3
VENUES = ("usdm", "usdm", "spot")


@pytest.mark.timeout(900)
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
