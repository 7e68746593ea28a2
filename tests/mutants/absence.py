"""What counts as proof that an attempt was never executed."""

from typing import Final

from tests.mutants.mutant import SCRIPTS, Edit, Mutant

RECONCILE: Final = "app/execution/reconcile.py"
EVIDENCE: Final = "app/execution/evidence.py"
CONTEXT: Final = "app/execution/context.py"
EVIDENCE_TESTS: Final = "tests/unit/test_evidence.py"

MUTANTS: Final = (
    Mutant(
        name="horizon_of_a_quarter_second",
        breaks="a request counts as dead 0.25 s after it was stamped",
        harm="it is on its way for up to 3 s: absent now proves nothing",
        expected="newer_than_the_pin or goes_by_the_exchanges_clock",
        edits=(
            Edit(
                file="app/journal/rows.py",
                old="return self.timestamp_ms + self.recv_window_ms",
                new="return self.timestamp_ms + 250",
            ),
            Edit(file=CONTEXT, old="fence_margin_ms: int = 2_000", new="fence_margin_ms: int = 0"),
            Edit(file=CONTEXT, old="absent_spread_usdm_ms: int = 5_000", new="absent_spread_usdm_ms: int = 250"),
        ),
    ),
    Mutant(
        name="one_not_found_is_proof",
        breaks="one answer that the order does not exist lets it be sent again",
        harm="a read side that lags says so of every new order",
        expected="position_equal or newer_than_the_pin",
        edits=(
            Edit(
                file=EVIDENCE,
                old="    if not (enough_answers(evidence, rules) and evidence.clean_listing_ms):\n",
                new="    if not is_over:\n        return Verdict.ABSENT\n"
                "    if not (enough_answers(evidence, rules) and evidence.clean_listing_ms):\n",
            ),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="one_not_found_is_enough_beside_the_list",
        breaks="(b) is dropped: one answer and a list are enough",
        harm="one of the answers that a load balancer spreads over several read sides decides",
        expected="enough_is_three or of_its_own",
        edits=(
            Edit(
                file=EVIDENCE,
                old="return evidence.absent_count >= rules.answers and spread_ms >= rules.spread_ms",
                new="return evidence.absent_count >= 1 and spread_ms >= 0",
            ),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="asked_before_the_fence_counts",
        breaks="(a) is dropped: answers from before the fence are evidence",
        harm="the request may still arrive after them",
        expected="goes_by_the_exchanges_clock or after_fence_and_margin",
        edits=(
            Edit(
                file=EVIDENCE,
                old="if server_time_ms < self.fence_ms + rules.margin_ms:",
                new="if server_time_ms < 0:",
            ),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="fence_by_our_own_clock",
        breaks="whether the fence has passed is read from the local clock",
        harm="a clock that is ahead counts answers from before the fence",
        expected="fence_goes_by_the_exchanges_clock",
        edits=(
            Edit(
                file=RECONCILE,
                old="server_time_ms = context.gateway.server_time(venue).server_time_ms",
                new="server_time_ms = context.clock.now_ms()",
            ),
        ),
    ),
    Mutant(
        name="evidence_outlives_its_attempt",
        breaks="evidence that was gathered for one attempt counts for the next",
        harm="the second doubt is settled by answers from before the second request left",
        expected="answers_of_its_own",
        edits=(
            Edit(
                file=EVIDENCE,
                old='return cls(**stored) if stored.get("fence_ms") == fence_ms else cls(fence_ms=fence_ms)',
                new='return cls(**{**stored, "fence_ms": fence_ms})',
            ),
            Edit(
                file=RECONCILE,
                old="evidence=Evidence.read(_carrier(tries).evidence, fence_ms=fence_ms)",
                new="evidence=Evidence.read(\n            next((one.evidence for one in "
                "reversed(tries) if one.evidence), None), fence_ms=fence_ms\n        )",
            ),
        ),
    ),
    Mutant(
        name="evidence_survives_a_refusal",
        breaks="when a refusal casts doubt on an earlier absence, the old evidence stays",
        harm="the same lagging answers that were wrong once decide again",
        expected="evidence_anew or absent_afresh",
        edits=(
            Edit(
                file="app/journal/attempts.py",
                old=".values(outcome=None, settled_at_ms=None, evidence=None, seal=None)",
                new=".values(outcome=None, settled_at_ms=None, seal=None)",
            ),
            Edit(
                file="app/journal/attempts.py",
                old="    connection.execute(update(_A).where(_A.c.key == key, "
                "_A.c.outcome.is_(None)).values(evidence=None))\n",
                new="",
            ),
        ),
    ),
    Mutant(
        name="no_witness",
        breaks="(d) is dropped: an opening order is sent again without a later order in the list",
        harm="a read side that lags longer than usual makes two orders",
        expected="position_equal or newer_than_the_pin",
        edits=(
            Edit(
                file=EVIDENCE,
                old="proven = evidence.witness_order_id != 0 and evidence.witness_time_ms > "
                "evidence.fence_ms and venue",
                new="proven = venue",
            ),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="witness_from_before_the_fence",
        breaks="an order taken after the pin, but before the fence, is a witness",
        harm="our request may have been executed right after it, and the list stop in between",
        expected="newer_than_the_pin",
        edits=(
            Edit(
                file=EVIDENCE,
                old="        and order.time_ms > wanted.fence_ms\n",
                new="        and order.time_ms > wanted.fence_ms - 3_000\n",
            ),
            Edit(file=EVIDENCE, old="and evidence.witness_time_ms > evidence.fence_ms and", new="and"),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="witness_on_another_symbol",
        breaks="an order on any symbol is a witness",
        harm="symbols are read from different places: one being up to date says nothing of another",
        expected="another_symbol",
        edits=(Edit(file=EVIDENCE, old="        and order.symbol == wanted.symbol\n", new=""),),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="strangers_in_the_list_are_passed_over",
        breaks="(c) is weakened: an unclaimed order that looks like ours does not spoil the list",
        harm="a canceled Spot order has lost its id: it was ours, and is sent again",
        is_searched=False,
        expected="spoils_the_list",
        edits=(
            Edit(file=EVIDENCE, old="return self.found is None and not self.suspects", new="return self.found is None"),
        ),
        tests=(EVIDENCE_TESTS,),
    ),
    Mutant(
        name="list_begins_at_the_last_attempt",
        breaks="allOrders is read from the last attempt's timestamp on, without looking back",
        harm="the engine's clock may be behind: an executed order lies before the beginning of the list",
        expected="looks_back_far_enough",
        edits=(
            Edit(
                file=RECONCILE,
                old="return case.attempts[0].timestamp_ms - context.horizons.all_orders_lookback_ms",
                new="return case.attempts[-1].timestamp_ms",
            ),
        ),
    ),
    Mutant(
        name="unhealthy_venue_is_believed",
        breaks="(e) is dropped: proof is taken while the venue leaves things unknown",
        harm="in the very minutes in which its answers are worth least",
        expected="venue_leaves_things_unknown",
        edits=(
            Edit(
                file=RECONCILE,
                old="return not attempts.venue_left_unknown(connection, venue=case.intent.venue, since_ms=since_ms)",
                new="return not attempts.venue_left_unknown(connection, venue=case.intent.venue, since_ms=2**62)",
            ),
        ),
    ),
    Mutant(
        name="failed_query_is_not_found",
        breaks="a question that was not answered counts as: does not exist",
        harm="an exchange that is down proves the absence of every order",
        expected="not_answered_is_no_evidence",
        edits=(
            Edit(
                file=RECONCILE,
                old="        answer = context.gateway.get_order(\n"
                "            venue, case.intent.symbol, "
                "client_order_id=case.wanted.client_order_id, is_algo=case.row.is_algo\n"
                "        )\n",
                new="        try:\n            answer = context.gateway.get_order(\n"
                "                venue, case.intent.symbol, client_order_id=case.wanted.client_order_id,\n"
                "                is_algo=case.row.is_algo,\n            )\n"
                "        except ExchangeQueryError:\n            answer = OrderAbsent(venue=venue, "
                "symbol=case.intent.symbol)\n",
            ),
        ),
    ),
    Mutant(
        name="read_lag_of_a_second",
        breaks="the read side is taken to be a second behind at most",
        harm="exits are sent twice, and orders closed as expired that were executed",
        expected="exit_is_not_sent_again",
        edits=(Edit(file=CONTEXT, old="max_read_lag_ms: int = 15_000", new="max_read_lag_ms: int = 1_000"),),
    ),
    Mutant(
        name="closed_while_something_is_unexplained",
        breaks="an order is closed as expired although a trade or the position is not accounted for",
        harm="the trade that nobody explains is the order's own",
        expected="trade_that_could_be_its_own",
        edits=(
            Edit(
                file=EVIDENCE,
                old="proven or (lag_is_over and nothing_unexplained)",
                new="proven or lag_is_over",
            ),
        ),
        tests=(*SCRIPTS, EVIDENCE_TESTS),
    ),
    Mutant(
        name="restore_is_no_fence",
        breaks="after a restore the last known attempt's fence is waited for, not the time of the restore",
        harm="later attempts have been forgotten, and their fences with them",
        expected="time_of_the_restore",
        edits=(
            Edit(
                file=RECONCILE,
                old="fence_ms = max(fence_ms, stamp.restored_at_ms + horizons.recv_window_ms)",
                new="fence_ms = max(fence_ms, 0)",
            ),
        ),
    ),
)
