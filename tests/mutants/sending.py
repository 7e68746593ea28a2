"""What has to be true before a request leaves."""

from typing import Final

from tests.mutants.mutant import SCRIPTS, Edit, Mutant

DISPATCH: Final = "app/execution/dispatch.py"
CONDITIONS: Final = "app/execution/conditions.py"
ORDER: Final = "app/execution/order.py"
CONTEXT: Final = "app/execution/context.py"
INTENTS: Final = "app/journal/intents.py"
MAKE: Final = "        return context.journal.make(write, kept_open=is_struck)\n"
LOST: Final = "    except StoreUnavailableError:\n        if written is not None:\n"
OWNER: Final = " and _is_its_owner(connection, attempt)"
PLACE: Final = "outcome = context.gateway.place_order(request)"

MUTANTS: Final = (
    Mutant(
        name="no_journal_before_send",
        breaks="the request leaves before DISPATCHED is on disk",
        harm="a worker killed in between leaves an order that the journal knows nothing of, and it is sent again",
        expected="on_a_commit_that_was_not_answered or carries_the_timestamp",
        edits=(
            Edit(
                file=DISPATCH,
                old="    request: PinnedOrder\n    pinned_at_s: float\n",
                new="    request: PinnedOrder\n    pinned_at_s: float\n    early: Outcome\n",
            ),
            Edit(
                file=DISPATCH,
                old="request=request, pinned_at_s=pinned_at_s)",
                new="request=request, pinned_at_s=pinned_at_s, early=context.gateway.place_order(request))",
            ),
            Edit(file=DISPATCH, old=PLACE, new="outcome = dispatched.early"),
        ),
    ),
    Mutant(
        name="timestamp_not_pinned",
        breaks="the request is stamped when it leaves, and not with the timestamp in the journal",
        harm="the fence that reconcile waits for is not the one that the exchange goes by",
        expected="carries_the_timestamp",
        edits=(
            Edit(
                file=DISPATCH,
                old="from dataclasses import dataclass\n",
                new="from dataclasses import dataclass, replace\n",
            ),
            Edit(
                file=DISPATCH,
                old=PLACE,
                new="outcome = context.gateway.place_order(replace(request, timestamp_ms=context.clock.now_ms()))",
            ),
        ),
    ),
    Mutant(
        name="pinned_by_our_own_clock",
        breaks="the timestamp is pinned by the local clock, not by the exchange's",
        harm="a clock that is ahead moves the fence into the future; one that is behind gets everything refused",
        expected="pinned_by_the_exchanges_clock",
        edits=(
            Edit(
                file=DISPATCH,
                old="timestamp_ms=context.exchange_clock.lower_bound_ms(venue)",
                new="timestamp_ms=context.clock.now_ms()",
            ),
        ),
    ),
    Mutant(
        name="stale_pin_is_sent",
        breaks="a request goes out however long ago its timestamp was pinned",
        harm="what waited behind a slow disk is sent late, at a price that nobody asked for any more",
        expected="half_a_second_old",
        edits=(
            Edit(
                file=DISPATCH,
                old="if waited_ms > context.horizons.pin_to_send_limit_ms:",
                new="if waited_ms > 3_600_000:",
            ),
        ),
    ),
    Mutant(
        name="lost_commit_counts_as_won",
        breaks="a commit of DISPATCHED whose answer was lost is taken for done",
        harm="if it was rolled back, an order is sent that the journal knows nothing of",
        expected="on_a_commit_that_was_not_answered or answer_was_lost_is_not_won",
        edits=(
            Edit(
                file=DISPATCH,
                old=f"{MAKE}{LOST}            _disown(context, written)\n",
                new=f"{MAKE}{LOST}            return written\n",
            ),
            Edit(
                file=DISPATCH,
                old=f"            written = dispatched\n{LOST}            _disown(context, written)\n",
                new=f"            written = dispatched\n{LOST}            return written\n",
            ),
        ),
    ),
    Mutant(
        name="validity_outside_the_transaction",
        breaks="validity is looked at before the worker sets out, and not in the transaction of DISPATCHED",
        harm="a worker that was paused in between sends an order that is long out of date",
        expected="validity_ran_out_while_its_worker_was_paused",
        edits=(Edit(file=CONDITIONS, old="pin.fence_ms <= row.valid_until_ms", new="pin.fence_ms > 0"),),
    ),
    Mutant(
        name="kill_switch_before_admission_only",
        breaks="the kill switch is looked at on admission, and not in the transaction of DISPATCHED",
        harm="orders go out after somebody has pulled the switch, and a flushed Redis releases it",
        expected="kill_switch_set_after_admission",
        edits=(Edit(file=CONDITIONS, old="(within_validity, not_killed, ", new="(within_validity, "),),
    ),
    Mutant(
        name="kill_latch_ignored",
        breaks="only the Redis key is asked, not the latch in the journal",
        harm="FLUSHALL, or a replica promoted without the key, starts trading again",
        expected="outlives_a_flush or and_flushed",
        edits=(
            Edit(
                file=CONDITIONS,
                old="kill.denied_at_dispatch(standing.stamp, ",
                new='kill.denied_at_dispatch(standing.stamp._replace(kill_state="RUN"), ',
            ),
        ),
    ),
    Mutant(
        name="cancel_requested_is_no_condition",
        breaks="an order that somebody has asked to cancel may be sent all the same",
        harm="the cancel was told to wait for it, so the order is on the book after its end",
        expected="canceled_while_its_worker_was_paused",
        edits=(
            Edit(
                file=CONDITIONS,
                old="if standing.row.cancel_requested and kind",
                new="if standing.row.cancel_requested is None and kind",
            ),
            Edit(
                file=ORDER,
                old='    if row.cancel_requested:\n        return _close(context, row, "canceled '
                'before it was sent"), False\n',
                new="",
            ),
        ),
    ),
    Mutant(
        name="epoch_condition_dropped",
        breaks="after a restore, rows of an earlier epoch may be sent without a look at the exchange",
        harm="a process that read the journal before it was rolled back sends what had been sent",
        expected="looked_before_the_restore",
        edits=(
            Edit(
                file=CONDITIONS,
                old="if stamp.restored_at_ms is None or kind is EffectKind.CANCEL or",
                new="if stamp.restored_at_ms is None or stamp.epoch or kind is EffectKind.CANCEL or",
            ),
        ),
    ),
    Mutant(
        name="first_not_found_after_a_restore_is_believed",
        breaks="after a restore, one answer that the order does not exist lets it be sent at once",
        harm="what was dispatched right before the restore is still on its way, or not shown yet",
        expected="forgotten_dispatch_is_found",
        edits=(Edit(file="app/execution/recheck.py", old="    if early_ms > 0:\n", new="    if early_ms > 10**9:\n"),),
    ),
    Mutant(
        name="proof_does_not_bar_sending",
        breaks="an order that the exchange has confirmed may be dispatched again",
        harm="whatever brings its row back to a sendable state buys a second time",
        expected="exchange_has_confirmed",
        edits=(
            Edit(
                file=DISPATCH,
                old='raise InvariantViolatedError(f"{row.key}: the exchange has this order; it must not be sent")',
                new="pass",
            ),
        ),
    ),
    Mutant(
        name="fence_ignored",
        breaks="writes of an earlier owner are taken although the fence has been raised since",
        harm="a zombie from before a restore settles an attempt that is not its own, and makes it sendable",
        expected="zombie_from_before_a_restore",
        edits=(
            Edit(file=INTENTS, old="_T.c.fence == ", new="_T.c.fence >= 0 * "),
            Edit(
                file="app/execution/settle.py",
                old="(row.state, row.attempt, row.fence) == (IntentState.DISPATCHED, attempt.attempt, attempt.fence)",
                new="(row.state, row.attempt) == (IntentState.DISPATCHED, attempt.attempt)",
            ),
            Edit(file="app/execution/settle.py", old=OWNER, new=""),
        ),
    ),
    Mutant(
        name="disowned_whosoever_it_is",
        breaks="whose commit was not answered says not sent of the attempt with its number, whoever made that",
        harm="if the commit had left nothing, another may have sent it meanwhile: the order is sent again",
        expected="does_not_disown",
        edits=(Edit(file="app/execution/settle.py", old=OWNER, new=""),),
    ),
    Mutant(
        name="others_believe_a_lost_commit",
        breaks="threads whose changes went in one commit take them for made before that is answered",
        harm="an order is sent of which the journal may know nothing",
        is_searched=False,
        expected="won_by_none",
        edits=(Edit(file="app/journal/together.py", old="one.state = _State.UNSURE", new="one.state = _State.MADE"),),
        tests=("tests/integration/test_together.py",),
    ),
    Mutant(
        name="no_compare_and_set",
        breaks="a row is moved whatever has become of it since it was read",
        harm="a reconciler that was paused makes an order sendable that somebody else has just found executed",
        expected="reconciler_that_was_paused or only_one_of_two_moves",
        edits=(
            Edit(
                file=INTENTS,
                old='        _T.c.state == bindparam("as_state"),\n'
                '        _T.c.attempt == bindparam("as_attempt"),\n'
                '        _T.c.fence == bindparam("as_fence"),\n',
                new="",
            ),
        ),
        tests=(*SCRIPTS, "tests/integration/test_journal.py"),
    ),
    Mutant(
        name="dispatch_does_not_read_again",
        breaks="the row is dispatched as it was read before admission, and moved without a comparison",
        harm="two workers of whom one was paused both send",
        expected="paused_worker_does_not_send",
        edits=(
            Edit(
                file=DISPATCH,
                old="if fresh.state not in SENDABLE or (fresh.attempt, fresh.fence) != (row.attempt, row.fence):",
                new="if fresh.state not in SENDABLE | {IntentState.DISPATCHED}:",
            ),
            Edit(
                file="app/job_safety/state.py",
                old="        (S.DISPATCHED, S.RECEIVED),  # NOT_SENT",
                new="        (S.DISPATCHED, S.DISPATCHED),\n        (S.DISPATCHED, S.RECEIVED),  # NOT_SENT",
            ),
        ),
    ),
    Mutant(
        name="resent_with_a_new_id",
        breaks="every attempt has a client order id of its own",
        harm="no question about the first attempt can be answered any more, and both count as different orders",
        expected="lets_the_lost_one_be_sent_again",
        edits=(
            Edit(
                file=DISPATCH,
                old="        client_order_id=row.client_order_id,\n",
                new='        client_order_id=row.client_order_id[:33] + (f"-{row.attempt}" if row.attempt else ""),\n',
            ),
        ),
    ),
    Mutant(
        name="unknown_is_sent_again_at_once",
        breaks="a request without an answer is repeated on the spot, as HTTP libraries do",
        harm="the first one may have been executed: two orders",
        expected="late_fill_reopens or position_equal",
        edits=(
            Edit(
                file=DISPATCH,
                old=PLACE,
                new=f"{PLACE}\n    if isinstance(outcome, Unknown):\n        {PLACE}",
            ),
        ),
    ),
    Mutant(
        name="guard_done_is_trusted",
        breaks="a guard that says done ends the job without a look at the row",
        harm="a guard from before a restore, or one that somebody has set, loses the order",
        expected="done_guard_does_not_keep",
        edits=(
            Edit(
                file=ORDER,
                old='            answer = context.admission.ask("order", row.key, kind=kind, '
                "venue=intent.venue, distrust_done=True)\n",
                new="            return answer.hint, False\n",
            ),
        ),
    ),
    Mutant(
        name="guard_deleted_on_exception",
        breaks="whoever leaves without a result deletes the guard, also one that is not theirs any more",
        harm="a stale owner takes away the lease of its successor, and a third worker joins in",
        expected="successors_lease_away",
        edits=(
            Edit(
                file="app/job_safety/side_effect_guard.py", old='[token, "release", "", ""]', new='["", "bury", "", ""]'
            ),
        ),
    ),
    Mutant(
        name="stale_owner_marks_the_guard_done",
        breaks="a result is written over a guard that somebody else holds by now",
        harm="the successor's effect counts as done before it is",
        expected="does_not_touch_the_guard",
        edits=(
            Edit(
                file="app/job_safety/lua/lib_guard.lua",
                old="if what == 'done' and not guard then",
                new="if what == 'done' then",
            ),
        ),
    ),
    Mutant(
        name="early_admission_believed",
        breaks="an admission that came with the beginning of a job is used whatever the kill switch has done since",
        harm="an order that was admitted before a HALT goes out after it was lifted, without being asked anew",
        expected="switched_on_and_off_again",
        edits=(
            Edit(file=ORDER, old="ahead.kill_epoch == stamp.kill_epoch and ", new="ahead.kill_epoch >= 0 and "),
            Edit(file=DISPATCH, old="        kill_epoch=kill_epoch,\n", new="        kill_epoch=None,\n"),
        ),
        tests=("tests/integration/test_claims.py",),
    ),
    Mutant(
        name="early_admission_of_another_kind",
        breaks="what the queue says of an order is believed: an opening order passes as one that reduces",
        harm="whoever writes to Redis, or an old job, has an order pass the gates of another",
        expected="not_what_the_queue_says",
        edits=(
            Edit(
                file=ORDER,
                old="if is_fresh and (ahead.key, ahead.kind, ahead.venue) == (row.key, kind, venue):",
                new="if is_fresh and (ahead.key, ahead.venue) == (row.key, venue):",
            ),
        ),
        tests=("tests/integration/test_claims.py",),
    ),
    Mutant(
        name="lease_keeps_nobody_out",
        breaks="a lease that somebody holds is handed to the next who asks",
        harm="the journal alone keeps two workers apart, and every duplicate delivery runs up to its last line",
        expected="finds_a_living_lease",
        edits=(
            Edit(
                file="app/job_safety/lua/lib_admit.lua",
                old="string.sub(value, 1, 2) == 'L:'",
                new="string.sub(value, 1, 2) == 'X:'",
            ),
            Edit(
                file="app/job_safety/lua/lib_admit.lua",
                old="if distrust ~= '1'",
                new="if string.sub(value, 1, 2) == 'D:' and distrust ~= '1'",
            ),
        ),
    ),
    Mutant(
        name="quarantine_does_not_close_the_symbol",
        breaks="new opening orders go out on a symbol with a quarantined order",
        harm="nobody knows the position that they add to",
        expected="closes_its_symbol",
        edits=(Edit(file=CONDITIONS, old="(IntentState.QUARANTINED, *(", new="(IntentState.SIMULATED, *("),),
    ),
)
