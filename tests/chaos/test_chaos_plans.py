"""The chaos suite itself: that it leaves nothing out, and that a fault which did not strike is not taken for one."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from app.exchange.paper.canned import CannedReply
from app.exchange.paper.faults import FaultAction
from app.job_safety.faults import FaultPoint
from app.job_safety.outcome import FailureClass
from app.job_safety.state import IntentState
from app.journal.rows import AttemptRow
from tests.chaos import plans
from tests.chaos.checkers import is_given_up_rightly
from tests.chaos.faults import ACTIONS_WITH_REPLY, Strike, bad_answers, dealt, matrix, modes, storm
from tests.chaos.runner import Result
from tests.chaos.strikes import Strikes

REJECTED = IntentState.REJECTED


def test_every_action_and_reply_of_the_exchange_is_part_of_the_matrix() -> None:
    assert {mode.action for mode in modes()} == set(FaultAction)
    assert {mode.canned for mode in modes() if mode.action in ACTIONS_WITH_REPLY} == set(CannedReply)
    assert {point for point, _ in matrix()} == set(FaultPoint)


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_all_seeds_together_run_every_pair_once(seeds: int) -> None:
    names = [mode.name for seed in range(seeds) for mode in dealt(seed, seeds)]
    assert sorted(names) == sorted(mode.name for mode in modes())
    assert len(set(names)) == len(names)


def test_every_strike_has_its_place_in_a_storm_and_a_way_to_strike() -> None:
    weights = (plans.KILLS_ONLY, plans.REDIS, plans.SENTINEL, plans.POSTGRES, plans.EVERYTHING)
    assert {strike for one in weights for strike in one} == set(Strike)
    for strike in Strike:
        assert callable(getattr(Strikes, f"_{strike.name.lower()}"))


def test_storm_holds_every_strike_of_its_weights_and_the_same_seed_makes_the_same_storm() -> None:
    planned = storm(Random(3), plans.EVERYTHING, count=30, pause_s=0.5)
    assert {one.strike for one in planned} == set(plans.EVERYTHING)
    assert len(planned) == 30
    assert planned == storm(Random(3), plans.EVERYTHING, count=30, pause_s=0.5)


def test_storm_refuses_an_order_once_and_not_at_random() -> None:
    """Three refusals in a row end an order rightly: at random they would make a storm fail now and then."""
    refusals = {mode.name for mode in modes() if mode.is_refusal}
    for seed in range(200):
        for rule in bad_answers(Random(seed)):
            assert rule["name"] not in refusals or rule["match"]["times"] == 1


@dataclass
class Family:
    """Children of a supervisor, as an arena tells of them."""

    members: dict[str, int]
    killed: list[int] = field(default_factory=list)

    def roles(self) -> dict[str, int]:
        return self.members

    def kill_child(self, pid: int) -> None:
        if pid < 0:
            raise ProcessLookupError(pid)
        self.killed.append(pid)


def strikes_on(family: Any) -> Strikes:
    return Strikes(one=family, redis=SimpleNamespace(), random=Random(1))  # type: ignore[arg-type]  # only its children matter here


def test_role_that_is_new_is_killed_by_itself() -> None:
    family = Family({"orders-1": 1, "orders-2": 2, "books-1": 3, "newcomer-1": 4})
    strikes = strikes_on(family)
    assert all(strikes.strike(Strike.KILL_CHILD) for _ in range(6))
    assert {name: count for name, count in strikes.result.struck.items() if name.startswith("kill -9 of ")} == {
        Strike.KILL_CHILD: 6, "kill -9 of orders": 2, "kill -9 of books": 2, "kill -9 of newcomer": 2,
    }  # fmt: skip


@pytest.mark.parametrize("members", [{}, {"orders-1": -1}])
def test_strike_that_found_nobody_alive_is_not_counted(members: dict[str, int]) -> None:
    strikes = strikes_on(Family(members))
    assert not strikes.strike(Strike.KILL_CHILD)
    assert strikes.result.struck == Counter()


def test_run_whose_fault_did_not_strike_is_not_good() -> None:
    assert Result().is_good
    assert not Result(not_struck=["FLUSHALL"]).is_good


def attempt(number: int, outcome: str, failure: FailureClass | None = None) -> AttemptRow:
    return AttemptRow(
        key="k", attempt=number, owner="o", fence=number, client_order_id="c", timestamp_ms=0, recv_window_ms=1_000,
        payload_hash="", config_hash="", dispatched_at_ms=0, outcome=outcome, failure_class=failure and failure.value,
    )  # fmt: skip


def tries(*outcomes: str, failure: FailureClass | None = None) -> list[AttemptRow]:
    return [attempt(number, outcome, failure) for number, outcome in enumerate(outcomes, start=1)]


@pytest.mark.parametrize(
    ("state", "made", "expected"),
    [
        (REJECTED, tries(*["REFUSED"] * 3, failure=FailureClass.CLOCK_SKEW), True),
        (REJECTED, tries(*["REFUSED"] * 2, failure=FailureClass.CLOCK_SKEW), False),
        (REJECTED, tries("NOT_SENT", *["REFUSED"] * 2, failure=FailureClass.CLOCK_SKEW), False),
        (REJECTED, tries(*["REFUSED"] * 5), True),
        (REJECTED, tries(*["REFUSED"] * 4), False),
        (REJECTED, tries("ABSENT", *["REFUSED"] * 5), False),
        (REJECTED, tries(), False),
        (IntentState.EXPIRED, tries(*["REFUSED"] * 5), False),
    ],
)
def test_order_is_given_up_rightly_only_after_the_last_refusal_it_may_hear(
    state: IntentState, made: list[AttemptRow], expected: bool
) -> None:
    assert is_given_up_rightly(state, made) is expected
