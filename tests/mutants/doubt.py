"""What becomes of an attempt, and of one whose outcome nobody knows."""

from typing import Final

from tests.mutants.mutant import SCRIPTS, Edit, Mutant

SETTLE: Final = "app/execution/settle.py"
ADOPT: Final = "app/execution/adopt.py"
RECONCILE: Final = "app/execution/reconcile.py"
ORDER: Final = "app/execution/order.py"
RESOLVE: Final = "app/execution/resolve.py"
CANCEL: Final = "app/execution/cancel.py"
STATE: Final = "app/job_safety/state.py"

MUTANTS: Final = (
    Mutant(
        name="unknown_is_refused",
        breaks="an outcome that nobody knows is settled as refused",
        harm="an executed order belongs to a row that says REJECTED",
        expected="late_fill_reopens or answer_was_lost or position_equal",
        edits=(
            Edit(
                file=SETTLE,
                old="row = _doubt(context, connection, attempt, failure)",
                new='row = _not_executed(context, connection, attempt, failure, outcome="REFUSED")',
            ),
        ),
    ),
    Mutant(
        name="positive_answer_dropped_by_a_fence",
        breaks="an acceptance counts only from the attempt that still holds the row",
        harm="the proof that came late is thrown away, and the order looked for, or sent again",
        expected="late_accepted",
        edits=(
            Edit(
                file=SETTLE,
                old="            case Accepted(order=order):\n",
                new="            case Accepted(order=order):\n"
                "                held = intents.load(connection, attempt.key, lock=True)\n"
                "                if not _is_held_by(held, attempt):\n"
                "                    return Settled(row=held, parcels=[])\n",
            ),
        ),
    ),
    Mutant(
        name="refusal_of_attempt_2_is_final",
        breaks="a refusal ends the intent although an earlier attempt was only declared absent",
        harm="attempt 1 had filled and thereby caused the refusal: its fill belongs to a row that says REJECTED",
        expected="refusal_of_attempt_2",
        edits=(Edit(file=SETTLE, old="earlier_ended = all(", new="earlier_ended = True or all("),),
    ),
    Mutant(
        name="expired_from_dispatched",
        breaks="a dispatched order whose validity is over is closed as EXPIRED",
        harm="its request may have arrived: the fill belongs to a row that says it never happened",
        expected="never_expired_straight",
        edits=(
            Edit(
                file=STATE,
                old="        (S.DISPATCHED, S.RECEIVED),  # NOT_SENT",
                new="        (S.DISPATCHED, S.EXPIRED),\n        (S.DISPATCHED, S.RECEIVED),  # NOT_SENT",
            ),
            Edit(
                file=ORDER,
                old="        if row.state in DOUBTFUL:\n            _give_back_early(context)",
                new="        if row.state is IntentState.DISPATCHED and _validity_is_over(context, row):\n"
                '            return _close(context, row, "validity ran out")\n'
                "        if row.state in DOUBTFUL:\n            _give_back_early(context)",
            ),
            Edit(
                file=ORDER,
                old="        if fresh.state in SENDABLE and intents.move(\n            connection, "
                "fresh, IntentState.EXPIRED",
                new="        if fresh.state in SENDABLE | {IntentState.DISPATCHED} and intents.move(\n"
                "            connection, fresh, IntentState.EXPIRED",
            ),
        ),
        tests=(*SCRIPTS, "tests/unit/test_state.py"),
    ),
    Mutant(
        name="rescue_resends",
        breaks="an order whose worker died is made sendable instead of being reconciled",
        harm="what every job queue does, and why a killed worker there means a second order",
        expected="never_expired_straight or late_accepted",
        edits=(
            Edit(
                file=STATE,
                old="        (S.DISPATCHED, S.IN_DOUBT),  # UNKNOWN",
                new="        (S.DISPATCHED, S.RETRY_WAIT),\n        (S.DISPATCHED, S.IN_DOUBT),  # UNKNOWN",
            ),
            Edit(
                file=RECONCILE,
                old="connection, row, IntentState.IN_DOUBT, now_ms=now_ms, in_doubt_since_ms=",
                new="connection, row, IntentState.RETRY_WAIT, now_ms=now_ms, in_doubt_since_ms=",
            ),
            Edit(
                file=RECONCILE,
                old="            row = intents.load(connection, key)\n",
                new="            return None\n",
            ),
        ),
    ),
    Mutant(
        name="living_owner_is_reconciled",
        breaks="a dispatched order is taken from an owner whose lease is alive",
        harm="its refusal comes too late to count: what is certain becomes a doubt that costs minutes",
        expected="left_to_its_owner",
        edits=(
            Edit(
                file=ORDER,
                old='                return f"{row.state.value}: {by} works on it"\n',
                new='                context.record.event("taken_over", key=row.key, by=by)\n',
            ),
        ),
    ),
    Mutant(
        name="late_fill_ignored",
        breaks="what the exchange says of an order that was closed does not reopen its row",
        harm="the books lack a position that the account holds",
        expected="late_fill_reopens or wrong_verdict",
        edits=(
            Edit(
                file=ADOPT,
                old="    executed = row.executed_quantity or Decimal(0)\n    if row.state in ON_EXCHANGE:\n",
                new="    executed = row.executed_quantity or Decimal(0)\n    if row.state in _NO_LONGER_SENT:\n"
                "        return None\n    if row.state in ON_EXCHANGE:\n",
            ),
        ),
    ),
    Mutant(
        name="finished_row_is_not_reopened",
        breaks="a canceled or lapsed order takes no further fills",
        harm="a fill between a cancel and its confirmation is lost",
        expected="late_fill_of_a_canceled",
        edits=(
            Edit(
                file=ADOPT,
                old="        if row.state not in LIVE and order.executed_quantity == executed:\n",
                new="        if row.state not in LIVE:\n",
            ),
        ),
    ),
    Mutant(
        name="quarantine_is_dropped",
        breaks="an order that cannot be decided is closed instead of being shown to a person",
        harm="I2: an acknowledged intent vanishes, and its fill with it",
        expected="closes_its_symbol",
        edits=(
            Edit(
                file=RECONCILE,
                old="            case.row,\n            IntentState.QUARANTINED,\n",
                new="            case.row,\n            IntentState.EXPIRED,\n",
            ),
        ),
    ),
    Mutant(
        name="quarantined_order_is_not_asked_about",
        breaks="nobody asks the exchange about a quarantined order any more",
        harm="the answer may come a minute later, and a person is made to guess",
        expected="quarantined_order",
        edits=(
            Edit(
                file=RECONCILE,
                old="            run_at_ms=now_ms + QUARANTINED_MS,\n",
                new="            run_at_ms=None,\n",
            ),
        ),
    ),
    Mutant(
        name="verdict_does_not_wait",
        breaks="a person's verdict that nothing was executed is taken at once",
        harm="a zombie or a packet on its way can still make the order",
        is_searched=False,
        expected="verdict_waits",
        edits=(
            Edit(
                file=RESOLVE,
                old="    if tries:\n        _wait_for_fence(",
                new="    if not tries:\n        _wait_for_fence(",
            ),
        ),
    ),
    Mutant(
        name="verdict_without_margin",
        breaks="a person's verdict is taken right when the fence passes",
        harm="the engine's clock may be behind the one that is told: it executes a moment later",
        is_searched=False,
        expected="verdict_waits",
        edits=(
            Edit(
                file=RESOLVE,
                old="fence_ms + context.horizons.fence_margin_ms - context.gateway",
                new="fence_ms - context.gateway",
            ),
        ),
    ),
    Mutant(
        name="verdict_by_our_own_clock",
        breaks="whether the fence has passed is read from the local clock",
        harm="a clock that is ahead lets a person say so too early",
        is_searched=False,
        expected="verdict_waits",
        edits=(
            Edit(
                file=RESOLVE,
                old="context.gateway.server_time(venue).server_time_ms",
                new="context.clock.now_ms()",
            ),
        ),
    ),
    Mutant(
        name="cancel_closes_what_was_sent",
        breaks="a cancel that read its order as unsent calls itself done whatever has become of it",
        harm="the order rests at the exchange, and nobody will cancel it",
        expected="read_its_order_as_unsent",
        edits=(
            Edit(
                file=CANCEL,
                old='"the order was never sent") if moved else',
                new='"the order was never sent") if moved is not None else',
            ),
        ),
    ),
    Mutant(
        name="cancel_does_not_bar_the_resend",
        breaks="a cancel of an order in doubt leaves no mark on the order",
        harm="the order is proven absent, and sent again after it was canceled",
        expected="bars_its_resend or keeps_it_from_being_sent",
        edits=(
            Edit(
                file=CANCEL,
                old="intents.touch(connection, fresh, now_ms=now_ms, cancel_requested=True)",
                new="intents.touch(connection, fresh, now_ms=now_ms)",
            ),
        ),
    ),
    Mutant(
        name="cancel_without_an_answer_is_done",
        breaks="a cancel whose answer was lost, or that found no order, counts as done",
        harm="the order may rest on the book for ever",
        expected="found_no_order",
        edits=(
            Edit(
                file=CANCEL,
                old='after, settled_as = IntentState.IN_DOUBT, ""',
                new='after, settled_as = IntentState.DONE, ""',
            ),
        ),
    ),
)
