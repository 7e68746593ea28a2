"""The state machines, walked pair by pair against the rules of PROTOCOL.md, and pinned to Lua and the docs."""

import itertools
import re
from pathlib import Path

import pytest

from app.job_safety import scripts
from app.job_safety.admission import EffectKind
from app.job_safety.errors import IllegalTransitionError
from app.job_safety.state import (
    DOUBTFUL,
    LIVE,
    ON_EXCHANGE,
    ORDER_TRANSITIONS,
    SENDABLE,
    TERMINAL_STATES,
    IntentState,
    advance,
    transitions_of,
)
from app.journal.fence import is_before, next_fence, unpack

S = IntentState
DOCS = Path(__file__).parents[2] / "docs" / "explanation" / "protocol.md"

NEVER_EXECUTED = {S.RECEIVED, S.RETRY_WAIT, S.REJECTED, S.EXPIRED}
ORDER_MOVES = {
    S.RECEIVED: {S.DISPATCHED, S.SIMULATED, S.EXPIRED, S.QUARANTINED},
    S.RETRY_WAIT: {S.DISPATCHED, S.EXPIRED, S.QUARANTINED},
    S.DISPATCHED: {S.RECEIVED, S.RETRY_WAIT, S.REJECTED, S.IN_DOUBT},
    S.IN_DOUBT: {S.RETRY_WAIT, S.EXPIRED, S.REJECTED, S.QUARANTINED},
    S.QUARANTINED: {S.EXPIRED},
}
"""Every move of an order that is not proof of execution."""

CANCEL_MOVES = {
    S.RECEIVED: {S.DISPATCHED, S.DONE, S.REJECTED, S.SIMULATED, S.EXPIRED, S.QUARANTINED},
    S.RETRY_WAIT: {S.DISPATCHED, S.DONE, S.EXPIRED},
    S.DISPATCHED: {S.DISPATCHED, S.DONE, S.REJECTED, S.IN_DOUBT, S.RETRY_WAIT},
    S.IN_DOUBT: {S.DISPATCHED, S.DONE, S.QUARANTINED},
    S.QUARANTINED: {S.DONE},
}
BOOK_MOVES = {
    S.RECEIVED: {S.DONE, S.REJECTED, S.EXPIRED, S.QUARANTINED},
    S.QUARANTINED: {S.RECEIVED, S.EXPIRED},
}


def is_proof(before: IntentState, after: IntentState) -> bool:
    """Proof of execution is welcome in every state of an order; it never takes back a fill that is known."""
    if after not in ON_EXCHANGE or before in {S.DONE, S.SIMULATED}:
        return False
    return not (before in ON_EXCHANGE and after is S.ACCEPTED)


def is_legal(kind: str, before: IntentState, after: IntentState) -> bool:
    if kind == "order":
        return is_proof(before, after) or after in ORDER_MOVES.get(before, set())
    return after in (CANCEL_MOVES if kind == "cancel" else BOOK_MOVES).get(before, set())


@pytest.mark.parametrize("kind", ["order", "cancel", "position", "ledger", "pnl", "signal"])
def test_every_pair_of_states_is_a_move_or_is_refused(kind: str) -> None:
    for before, after in itertools.product(S, S):
        if is_legal(kind, before, after):
            assert advance(kind, before, after) is after
        else:
            with pytest.raises(IllegalTransitionError, match=f"{kind}: {before} -> {after}"):
                advance(kind, before, after)


def test_order_is_dispatched_from_nowhere_but_the_sendable_states() -> None:
    """I4: neither in doubt, nor finished, nor on the exchange may ever be sent."""
    assert {before for before, after in ORDER_TRANSITIONS if after is S.DISPATCHED} == SENDABLE


def test_order_in_doubt_becomes_sendable_only_by_the_moves_that_claim_absence() -> None:
    into_sendable = {(before, after) for before, after in ORDER_TRANSITIONS if after in SENDABLE}
    assert into_sendable == {(S.DISPATCHED, S.RECEIVED), (S.DISPATCHED, S.RETRY_WAIT), (S.IN_DOUBT, S.RETRY_WAIT)}


def test_order_is_never_expired_straight_from_dispatched() -> None:
    assert (S.DISPATCHED, S.EXPIRED) not in ORDER_TRANSITIONS


def test_what_a_person_must_judge_is_never_sent_again() -> None:
    reachable, frontier = set[IntentState](), {S.QUARANTINED}
    while frontier:
        reachable |= frontier
        frontier = {after for before, after in ORDER_TRANSITIONS if before in frontier} - reachable
    assert S.DISPATCHED not in reachable


@pytest.mark.parametrize("before", sorted(set(S) - {S.DONE, S.SIMULATED}))
@pytest.mark.parametrize("after", sorted(ON_EXCHANGE - {S.ACCEPTED}))
def test_proof_of_execution_is_welcome_in_every_state(before: IntentState, after: IntentState) -> None:
    assert advance("order", before, after) is after


@pytest.mark.parametrize("before", sorted(NEVER_EXECUTED | DOUBTFUL))
def test_order_that_rests_at_the_exchange_reopens_what_was_thought_never_executed(before: IntentState) -> None:
    assert advance("order", before, S.ACCEPTED) is S.ACCEPTED


def test_nothing_leads_from_the_exchange_back_to_never_executed() -> None:
    assert not {(b, a) for b, a in ORDER_TRANSITIONS if b in ON_EXCHANGE and a not in ON_EXCHANGE}


@pytest.mark.parametrize("kind", ["order", "cancel", "ledger"])
def test_every_state_that_can_be_reached_can_end(kind: str) -> None:
    """No dead end: from everywhere that RECEIVED leads to, a finished state can be reached."""
    moves = transitions_of(kind)
    reachable, frontier = set[IntentState](), {S.RECEIVED}
    while frontier:
        reachable |= frontier
        frontier = {after for before, after in moves if before in frontier} - reachable
    ending = set(TERMINAL_STATES)
    while more := {before for before, after in moves if after in ending} - ending:
        ending |= more
    assert reachable - ending == set()


def test_finished_cancels_and_book_jobs_stay_finished() -> None:
    for kind in ("cancel", "ledger"):
        assert not {pair for pair in transitions_of(kind) if pair[0] in TERMINAL_STATES}


def test_groups_of_states_fit_together() -> None:
    assert LIVE < ON_EXCHANGE
    assert not LIVE & TERMINAL_STATES
    assert ON_EXCHANGE - LIVE < TERMINAL_STATES
    assert not SENDABLE & (DOUBTFUL | ON_EXCHANGE | TERMINAL_STATES)
    assert not DOUBTFUL & (ON_EXCHANGE | TERMINAL_STATES)
    assert set(S) == SENDABLE | DOUBTFUL | LIVE | TERMINAL_STATES


def test_states_are_stored_under_these_names() -> None:
    """The values are in journals out there: a new name would orphan their rows."""
    assert [state.value for state in S] == [
        "RECEIVED",
        "DISPATCHED",
        "IN_DOUBT",
        "RETRY_WAIT",
        "ACCEPTED",
        "PARTIALLY_FILLED",
        "FILLED",
        "CANCELED",
        "EXPIRED_BY_EXCHANGE",
        "REJECTED",
        "EXPIRED",
        "QUARANTINED",
        "SIMULATED",
        "DONE",
    ]
    assert all(state.name == state.value for state in S)


def test_docs_explain_every_state_and_no_other() -> None:
    rows = re.findall(r"^\|([^|]*)\|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`([A-Z][A-Z_]+)`", row)}
    assert told == {state.value for state in S}


def test_lua_of_admission_knows_every_kind_of_effect_and_no_other() -> None:
    told = re.search(r"what kind of effect, ([a-z |]+)", scripts.source("admit"))
    assert told is not None
    assert set(told[1].replace("|", " ").split()) == {kind.value for kind in EffectKind}
    allowed = re.search(r"local allowed = \{(.*?)\}", scripts.source("admit"), flags=re.DOTALL)
    assert allowed is not None
    named = {word for text in re.findall(r"'([^']*)'", allowed[1]) for word in text.split()}
    assert named == {kind.value for kind in EffectKind} - {"book"}


def test_fence_only_grows_and_a_new_epoch_is_above_all_that_went_before() -> None:
    first = next_fence(0, 1)
    second = next_fence(first, 1)
    restored = next_fence(second, 2)
    assert 0 < first < second < restored < next_fence(restored, 2)
    assert [unpack(fence) for fence in (first, second, restored)] == [(1, 1), (1, 2), (2, 1)]
    assert [is_before(fence, 2) for fence in (0, first, second, restored)] == [True, True, True, False]


def test_fence_is_stored_in_the_same_way_for_ever() -> None:
    """Fences are in journals out there, and are compared with new ones."""
    assert [next_fence(0, 1), next_fence(4_294_967_297, 1), next_fence(0, 2)] == [
        4_294_967_297, 4_294_967_298, 8_589_934_593,
    ]  # fmt: skip
