"""What counts as proof that an order was never executed, clause by clause (PROTOCOL.md, Reconcile, a to e)."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.execution.evidence import (
    Evidence,
    KnownOrders,
    Listing,
    Rules,
    Verdict,
    Wanted,
    enough_answers,
    judge,
    read_listing,
)
from app.job_safety.outcome import ExchangeOrder, Venue

FENCE = 1_000_000
RULES = Rules(margin_ms=2_000, answers=3, spread_ms=5_000, max_read_lag_ms=15_000)
WANTED = Wanted(client_order_id="fo-wanted", symbol="BTCUSDT", side="BUY", quantity="1", fence_ms=FENCE)
KNOWN = KnownOrders(client_order_ids=frozenset({"fo-known"}), order_ids=frozenset({77}), prefix="fo-")
PROVEN = Evidence(
    fence_ms=FENCE,
    absent_count=3,
    first_absent_ms=FENCE + 2_000,
    last_absent_ms=FENCE + 7_000,
    clean_listing_ms=FENCE + 7_000,
    witness_order_id=5,
    witness_time_ms=FENCE + 1,
)
UNWITNESSED = replace(PROVEN, witness_order_id=0, witness_time_ms=0)


def order(client_order_id: str = "web_1", **changes: object) -> ExchangeOrder:
    fields: dict[str, object] = {
        "venue": Venue.USDM,
        "symbol": "BTCUSDT",
        "order_id": 5,
        "client_order_id": client_order_id,
        "side": "SELL",
        "order_type": "MARKET",
        "status": "FILLED",
        "quantity": Decimal(7),
        "executed_quantity": Decimal(7),
        "time_ms": FENCE + 1,
    }
    return ExchangeOrder(**(fields | changes))  # type: ignore[arg-type]


def verdict(
    evidence: Evidence,
    *,
    after_fence_ms: int = 7_000,
    healthy: bool = True,
    opens_risk: bool = True,
    is_over: bool = False,
    explained: bool = True,
) -> Verdict:
    return judge(
        evidence,
        RULES,
        server_time_ms=FENCE + after_fence_ms,
        venue_is_healthy=healthy,
        opens_risk=opens_risk,
        is_over=is_over,
        nothing_unexplained=explained,
    )


# a and b: answers


@pytest.mark.parametrize(("after_fence_ms", "counts"), [(-5_000, 0), (0, 0), (1_999, 0), (2_000, 1), (9_000, 1)])
def test_absence_counts_only_when_asked_after_fence_and_margin(after_fence_ms: int, counts: int) -> None:
    assert Evidence(fence_ms=FENCE).with_absence(FENCE + after_fence_ms, RULES).absent_count == counts


@pytest.mark.parametrize(
    ("asked_ms", "is_enough"),
    [
        ((2_000, 4_500, 7_000), True),
        ((2_000, 7_000), False),
        ((2_000, 2_001, 6_999), False),
        ((1_000, 1_500, 7_000), False),
        ((2_000, 3_000, 4_000, 5_000, 6_000), False),
        ((2_000, 3_000, 4_000, 5_000, 7_000), True),
    ],
)
def test_enough_is_three_answers_spread_over_five_seconds(asked_ms: tuple[int, ...], is_enough: bool) -> None:
    evidence = Evidence(fence_ms=FENCE)
    for after_fence_ms in asked_ms:
        evidence = evidence.with_absence(FENCE + after_fence_ms, RULES)
    assert enough_answers(evidence, RULES) == is_enough


# c and d: the list


def test_wanted_order_in_the_list_is_found() -> None:
    listing = read_listing([order(), order("fo-wanted")], WANTED, KNOWN)
    assert listing.found is not None
    assert not listing.is_clean


@pytest.mark.parametrize(
    "suspect",
    [
        order("fo-of-nobody"),
        order("renamed", side="BUY", quantity=Decimal(1)),
        order("renamed", side="BUY", quantity=Decimal("1.000")),
    ],
)
def test_order_that_could_be_ours_and_that_nobody_claims_spoils_the_list(suspect: ExchangeOrder) -> None:
    listing = read_listing([suspect], WANTED, KNOWN)
    assert (listing.suspects, listing.is_clean) == ([suspect], False)


@pytest.mark.parametrize(
    "explained",
    [
        order("fo-known", side="BUY", quantity=Decimal(1)),
        order("renamed", order_id=77, side="BUY", quantity=Decimal(1)),
        order("web_1", side="SELL", quantity=Decimal(1)),
        order("web_1", side="BUY", quantity=Decimal("1.1")),
    ],
)
def test_order_that_is_explained_leaves_the_list_clean(explained: ExchangeOrder) -> None:
    assert read_listing([explained], WANTED, KNOWN).is_clean


@pytest.mark.parametrize(
    ("changes", "is_witness"),
    [
        ({"time_ms": FENCE + 1}, True),
        ({"time_ms": FENCE}, False),
        ({"time_ms": FENCE - 2_999}, False),
        ({"time_ms": 0}, False),
        ({"symbol": "ETHUSDT"}, False),
        ({"client_order_id": "fo-wanted"}, False),
    ],
)
def test_witness_is_another_order_of_the_symbol_taken_after_the_fence(
    changes: dict[str, object], is_witness: bool
) -> None:
    shown = order(**changes)  # type: ignore[arg-type]
    assert (read_listing([shown], WANTED, KNOWN).witness == shown) == is_witness


def test_witness_and_clean_list_come_from_one_answer() -> None:
    """A later list without a witness takes the earlier one back, and so does one that is not clean."""
    clean = Listing(found=None, suspects=[], witness=None)
    dirty = Listing(found=None, suspects=[order()], witness=order())
    assert PROVEN.with_listing(clean, FENCE + 9_000).witness_order_id == 0
    spoiled = PROVEN.with_listing(dirty, FENCE + 9_000)
    assert (spoiled.clean_listing_ms, spoiled.witness_order_id, spoiled.witness_time_ms) == (0, 0, 0)


# The verdict


def test_all_of_a_to_e_prove_absence() -> None:
    assert verdict(PROVEN) is Verdict.ABSENT
    assert verdict(PROVEN, is_over=True, explained=False) is Verdict.CLOSE


@pytest.mark.parametrize(
    "evidence",
    [
        replace(PROVEN, absent_count=2),
        replace(PROVEN, last_absent_ms=PROVEN.first_absent_ms + 4_999),
        replace(PROVEN, clean_listing_ms=0),
        UNWITNESSED,
        replace(PROVEN, witness_time_ms=FENCE),
    ],
    ids=["too few answers", "too close together", "no clean list", "no witness", "witness not past the fence"],
)
def test_opening_order_is_not_sent_again_when_one_part_is_missing(evidence: Evidence) -> None:
    assert verdict(evidence) is Verdict.WAIT
    assert verdict(evidence, after_fence_ms=10_000_000) is Verdict.WAIT


def test_venue_that_left_something_unknown_lately_delays_the_verdict() -> None:
    assert verdict(PROVEN, healthy=False) is Verdict.WAIT


@pytest.mark.parametrize(
    ("after_fence_ms", "explained", "expected"),
    [
        (14_999, True, Verdict.WAIT),
        (15_000, True, Verdict.CLOSE),
        (15_000, False, Verdict.WAIT),
    ],
)
def test_order_that_is_over_is_closed_without_a_witness_after_the_longest_lag_if_all_is_explained(
    after_fence_ms: int, explained: bool, expected: Verdict
) -> None:
    assert verdict(UNWITNESSED, after_fence_ms=after_fence_ms, is_over=True, explained=explained) is expected


@pytest.mark.parametrize(("after_fence_ms", "expected"), [(14_999, Verdict.WAIT), (15_000, Verdict.ABSENT)])
def test_reduction_is_sent_again_without_a_witness_after_the_longest_lag(
    after_fence_ms: int, expected: Verdict
) -> None:
    assert verdict(UNWITNESSED, after_fence_ms=after_fence_ms, opens_risk=False) is expected


@given(
    evidence=st.builds(
        Evidence,
        fence_ms=st.just(FENCE),
        absent_count=st.integers(0, 5),
        first_absent_ms=st.just(FENCE + 2_000),
        last_absent_ms=st.integers(FENCE + 2_000, FENCE + 20_000),
        clean_listing_ms=st.sampled_from((0, FENCE + 7_000)),
        witness_order_id=st.sampled_from((0, 5)),
        witness_time_ms=st.integers(FENCE - 3_000, FENCE + 3_000),
    ),
    after_fence_ms=st.integers(0, 60_000),
    facts=st.fixed_dictionaries({name: st.booleans() for name in ("healthy", "opens_risk", "is_over", "explained")}),
)
def test_no_verdict_rests_on_less_than_answers_and_a_clean_list_and_nothing_that_is_over_is_sent(
    evidence: Evidence, after_fence_ms: int, facts: dict[str, bool]
) -> None:
    given_verdict = verdict(evidence, after_fence_ms=after_fence_ms, **facts)
    if given_verdict is not Verdict.WAIT:
        assert enough_answers(evidence, RULES)
        assert evidence.clean_listing_ms
        assert (given_verdict is Verdict.CLOSE) == facts["is_over"]
    if given_verdict is Verdict.ABSENT and facts["opens_risk"]:
        assert evidence.witness_order_id
        assert evidence.witness_time_ms > FENCE
        assert facts["healthy"]


# In the journal


def test_evidence_survives_a_restart() -> None:
    assert Evidence.read(json.dumps(PROVEN.as_json()), fence_ms=FENCE) == PROVEN


@pytest.mark.parametrize("fence_ms", [FENCE - 1, FENCE + 1])
def test_evidence_of_another_fence_starts_at_zero(fence_ms: int) -> None:
    assert Evidence.read(json.dumps(PROVEN.as_json()), fence_ms=fence_ms) == Evidence(fence_ms=fence_ms)
    assert Evidence.read(None, fence_ms=fence_ms) == Evidence(fence_ms=fence_ms)
