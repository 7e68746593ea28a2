"""Ten ways to break the protocol, each as a short script against the real code: take one protection away and its test
goes red. The exchange is a model with a history of its own, and time moves only when a script moves it.
"""

from decimal import Decimal
from typing import cast

import pytest
from redis import Redis

from app.execution.evidence import KnownOrders, Wanted, read_listing
from app.execution.kill import KillSwitch
from app.intents import CancelIntent
from app.job_safety.errors import IllegalTransitionError
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.kill_key import KillKey
from app.job_safety.state import IntentState, advance
from app.journal import meta, schema
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.ports import NAMES, RedisOf
from tests.safety.simulation.world import LONG, SYMBOL, World
from workers.kill_mirror import KillMirror

S = IntentState


def states(world: World) -> dict[str, IntentState]:
    return {row.key: row.state for row in world.rows()}


# 1. A witness that is no witness


def test_position_equal_to_the_books_is_no_witness(world: World) -> None:
    """A read side that lags shows exactly that: no order, and a position as it was."""
    world.order(valid_for_s=LONG)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")

    world.reconcile_for(60)

    assert (world.row().state, world.executions()) == (S.IN_DOUBT, 1)
    world.exchange.stuck_at_ms.clear()
    world.settle()
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_order_on_another_symbol_is_no_witness(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.exchange.stuck_at_ms = {query: world.clock.now_ms() - 1 for query in QUERIES if query != "all_orders"}
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(4_000)
    other = world.exchange.foreign_order("ETHUSDT")

    world.reconcile_for(60)

    assert (world.row().state, len(world.attempts())) == (S.IN_DOUBT, 1)
    shown = other.seen_at(world.clock.now_ms())
    assert shown is not None
    wanted = Wanted(client_order_id="fo-1", symbol=SYMBOL, side="BUY", quantity="1", fence_ms=0)
    known = KnownOrders(client_order_ids=frozenset(), order_ids=frozenset(), prefix=CLIENT_ORDER_ID_PREFIX)
    assert read_listing([shown], wanted, known).witness is None


def test_order_newer_than_the_pin_but_not_than_the_fence_is_no_witness(world: World) -> None:
    """The request arrives after the witness was taken, and the read side stops in between."""
    world.order(valid_for_s=LONG)
    pinned_ms = world.clock.now_ms()
    world.finish(world.worker("k1"), send_place="delay 2900")
    world.pass_time(1_000)
    world.exchange.foreign_order(SYMBOL)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, pinned_ms + 2_000)

    world.reconcile_for(60)

    assert (world.row().state, world.executions()) == (S.IN_DOUBT, 1)
    assert not world.exchange.blind_sends


def test_order_taken_after_the_fence_is_a_witness_and_lets_the_lost_one_be_sent_again(world: World) -> None:
    """The other half: without this the four tests above would pass for a reconciler that never concludes anything."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(4_000)
    world.exchange.foreign_order(SYMBOL)

    world.reconcile_for(45)
    world.settle()

    assert (world.row().state, world.executions(), len(world.attempts())) == (S.FILLED, 1, 2)
    assert not world.exchange.blind_sends


# 2. A late ACCEPTED refused because the row had moved to IN_DOUBT


def test_late_accepted_is_taken_although_the_row_moved_to_in_doubt(world: World) -> None:
    world.order()
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    owner = world.worker("k1")
    world.run_until(owner, "answer:place")
    owner.is_frozen = True
    world.pass_time(6_000)
    world.finish(world.reconciler("k1"))
    assert world.row().state == S.IN_DOUBT

    owner.is_frozen = False
    world.finish(owner)

    assert (world.row().state, world.executions()) == (S.FILLED, 1)


# 3. REJECTED by attempt 2 while attempt 1 had executed unseen


def test_refusal_of_attempt_2_does_not_reject_what_attempt_1_had_executed_unseen(world: World) -> None:
    world.resend_reduction("answer_lost")

    world.finish(world.worker("k1"), send_place="refused")

    assert world.row().state == S.IN_DOUBT
    world.exchange.stuck_at_ms.clear()
    world.settle()
    assert (world.row().state, world.row().executed_quantity, world.executions()) == (S.FILLED, Decimal(1), 1)


def test_refusal_of_attempt_2_is_believed_after_attempt_1_was_proven_absent_afresh(world: World) -> None:
    """It ends: an intent that the exchange refuses for good is not asked about, resent and refused for ever."""
    world.resend_reduction("lost")
    world.finish(world.worker("k1"), send_place="refused")
    refused_at_ms = world.clock.now_ms()
    assert world.row().state == S.IN_DOUBT

    world.settle()

    assert world.row().state in {S.EXPIRED, S.REJECTED}
    assert world.clock.now_ms() - refused_at_ms >= 5_000, "evidence from before the refusal was used again"
    assert (len(world.attempts()), world.executions()) == (2, 0)


# 4. A finished row that nothing reopens after a late fill


def test_late_fill_reopens_a_row_that_was_closed_as_expired(world: World) -> None:
    world.order()
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.reconcile_for(40)
    assert world.row().state == S.EXPIRED

    world.exchange.stuck_at_ms.clear()
    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.FILLED, Decimal(1))
    assert world.alarms("late_fill") == 1
    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=world.exchange.orders[0].request.venue, symbol=SYMBOL) == 1


def test_late_fill_whose_order_is_not_shown_yet_is_not_booked_as_somebody_elses(world: World) -> None:
    """The trade list may be ahead of the order query. The trade proves that the order exists: ask again."""
    world.order()
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.reconcile_for(40)
    assert world.row().state == S.EXPIRED

    del world.exchange.stuck_at_ms["trades"]
    world.exchange.trades[0] = (world.clock.now_ms(), world.exchange.trades[0][1])
    world.round()
    world.pass_time(1_000)
    world.exchange.stuck_at_ms.clear()
    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.FILLED, Decimal(1))


# 5. Validity checked before a pause and not in the transaction; EXPIRED straight from DISPATCHED


@pytest.mark.parametrize("where", ["fault:before_admission", "fault:after_admission", "journal:begin"])
def test_order_is_not_sent_when_its_validity_ran_out_while_its_worker_was_paused(world: World, where: str) -> None:
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, where)
    worker.is_frozen = True
    world.pass_time(29_000)
    worker.is_frozen = False

    world.finish(worker)

    assert (world.row().state, world.exchange.flights) == (S.EXPIRED, [])


def test_order_is_never_expired_straight_from_dispatched(world: World) -> None:
    """Its validity is over and its worker is dead, but its request arrived."""
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "answer:place")
    worker.kill()
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.pass_time(40_000)

    world.finish(world.worker("k1"))

    assert world.row().state == S.IN_DOUBT
    with pytest.raises(IllegalTransitionError):
        advance("order", S.DISPATCHED, S.EXPIRED)
    world.exchange.stuck_at_ms.clear()
    world.settle()
    assert world.row().state == S.FILLED


# 6. The kill switch set by redis-cli after admission, and flushed


@pytest.mark.parametrize("word", ["true", "TRUE", "halt", "reduce_only", "cancel_only", "what?"])
def test_kill_switch_set_after_admission_stops_the_order(world: World, word: str) -> None:
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "journal:begin")
    world.redis.set(NAMES.kill_switch, word)

    world.finish(worker)

    assert (world.row().state, world.exchange.flights) == (S.RECEIVED, [])


def test_kill_state_latched_in_the_journal_outlives_a_flush_of_redis(world: World) -> None:
    world.order()
    world.redis.set(NAMES.kill_switch, "true")
    world.set_kill_state("HALT")
    world.redis.flushall()

    world.finish(world.worker("k1"))

    assert (world.row().state, world.exchange.flights) == (S.RECEIVED, [])


def kill_switch_of(world: World) -> KillSwitch:
    key = KillKey(cast("Redis", RedisOf(world, world.hand_process)), NAMES.kill_switch)
    return KillSwitch(
        journal=world.journal, key=key, read_here=dict, clock=world.clock, record=world.hand.record, owner="mirror",
        config_hash="",
    )  # fmt: skip


def test_word_taken_back_before_the_mirror_saw_it_releases_what_a_worker_latched(world: World) -> None:
    """A worker latches what stops it at once; the mirror, which looks now and then, has seen `false` both times."""
    world.redis.set(NAMES.kill_switch, "false")
    switch = kill_switch_of(world)
    mirror = KillMirror(switch)
    mirror.look()
    world.redis.set(NAMES.kill_switch, "true")
    assert switch.mirror()
    world.redis.set(NAMES.kill_switch, "false")
    world.pass_time(2_000)

    assert mirror.look()

    with world.journal.read() as connection:
        assert meta.load(connection).kill_state == "RUN"


def test_kill_switch_set_after_admission_and_flushed_stops_the_order(world: World) -> None:
    """What mirrors the key into the journal has seen it; that the key is gone again releases nothing."""
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "journal:begin")
    key = KillKey(cast("Redis", RedisOf(world, world.hand_process)), NAMES.kill_switch)
    mirror = KillMirror(
        KillSwitch(
            journal=world.journal, key=key, read_here=dict, clock=world.clock, record=world.hand.record,
            owner="mirror", config_hash="",
        )
    )  # fmt: skip
    world.redis.set(NAMES.kill_switch, "true")
    assert mirror.look()
    world.redis.flushall()
    assert not mirror.look()

    world.finish(worker)

    assert (world.row().state, world.exchange.flights) == (S.RECEIVED, [])


# 7. A person's "not executed" while a zombie can still send: see test_protocol_verdict.py


# 8. A stale owner marking the guard done


def test_stale_owner_does_not_touch_the_guard_of_its_successor(world: World) -> None:
    world.order()
    stale = world.worker("k1")
    world.run_until(stale, "fault:after_settle_commit")
    stale.is_frozen = True
    world.pass_time(5_000)
    guard = NAMES.guard("order", "k1")
    world.redis.set(guard, "L:successor#1", px=4_000)

    stale.is_frozen = False
    world.finish(stale)

    assert world.redis.get(guard) == b"L:successor#1"


def test_guard_is_never_done_for_an_attempt_that_settled_nothing(world: World) -> None:
    world.order()
    world.finish(world.worker("k1"), send_place="answer_lost")
    assert world.redis.get(NAMES.guard("order", "k1")) is None


def test_done_guard_does_not_keep_an_unfinished_order_from_being_sent(world: World) -> None:
    """The journal is the truth: a guard from before a restore, or one that somebody set, must not lose an order."""
    world.order()
    world.redis.set(NAMES.guard("order", "k1"), "D:FILLED")
    world.finish(world.worker("k1"))
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


# 9. A journal rolled back behind a dispatch


def test_order_that_was_dispatched_after_the_backup_is_found_and_not_sent_again(world: World) -> None:
    world.order(valid_for_s=LONG)
    backup = world.snapshot()
    world.finish(world.worker("k1"))
    world.pass_time(60_000)
    world.roll_back(backup)
    world.redis.flushall()

    world.settle()

    assert (world.row().state, world.executions()) == (S.FILLED, 1)
    assert not world.exchange.blind_sends


def test_second_attempt_that_was_dispatched_after_the_backup_is_found_too(world: World) -> None:
    """The journal remembers attempt 1, which was refused; attempt 2 has been forgotten and was executed."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="503_unavailable")
    assert world.row().state == S.RETRY_WAIT
    backup = world.snapshot()
    world.pass_time(5_000)
    world.finish(world.worker("k1"))
    assert world.row().state == S.FILLED
    world.pass_time(60_000)
    world.roll_back(backup)
    world.redis.flushall()

    world.settle()

    assert (world.row().state, world.executions()) == (S.FILLED, 1)


@pytest.mark.parametrize("lag_ms", [0, 2_000, 8_000, 14_000])
def test_forgotten_dispatch_is_found_although_the_read_side_lags(world: World, lag_ms: int) -> None:
    """One "does not exist" right after the restore proves nothing: the time of the restore is the fence."""
    world.order(valid_for_s=LONG)
    backup = world.snapshot()
    world.exchange.lag_everywhere(lag_ms)
    world.finish(world.worker("k1"), send_place="delay 2900")
    world.roll_back(backup)
    world.redis.flushall()

    for _ in range(60):
        world.round()
        world.pass_time(1_000)

    assert (world.row().state, world.executions()) == (S.FILLED, 1)
    assert not world.exchange.blind_sends


def test_doubt_in_the_backup_is_judged_by_the_time_of_the_restore(world: World) -> None:
    """Attempt 1 was in doubt at the backup; attempt 2, forgotten, was executed. What lies between is no witness."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    backup = world.snapshot()
    world.pass_time(4_000)
    world.exchange.foreign_order(SYMBOL)
    for _ in range(60):
        if world.row().state is not S.RETRY_WAIT:
            world.reconcile_for(1)
    world.pass_time(1_000)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"))
    world.roll_back(backup)
    world.redis.flushall()

    world.reconcile_for(45)

    assert (world.row().state, world.executions()) == (S.IN_DOUBT, 1)
    world.exchange.stuck_at_ms.clear()
    world.settle()
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_worker_that_looked_before_the_restore_does_not_send_after_it(world: World) -> None:
    """A process of the old epoch: it found nothing to look up, and the journal was rolled back under it."""
    world.order(valid_for_s=LONG)
    backup = world.snapshot()
    world.finish(world.worker("k1"))
    world.roll_back(backup)
    world.redis.flushall()
    world.pass_time(60_000)
    # In the backup's view nothing was sent: this one stands right before its own dispatch when a restore happens again.
    with world.journal.write() as connection:
        connection.execute(schema.journal_meta.update().values(restored_at_ms=None, epoch=1))
    stale = world.worker("k1")
    world.run_until(stale, "journal:begin")
    world.roll_back(backup)

    world.finish(stale)

    assert world.executions() == 1
    assert not world.exchange.blind_sends


# 10. A cancel acting on a status from before


def cancel(world: World) -> str:
    return world.enqueue(CancelIntent(key="c1", order_key="k1"))


def test_cancel_that_read_its_order_as_unsent_does_not_close_what_was_sent_meanwhile(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90))
    cancel(world)
    canceling = world.worker("c1")
    world.run_until(canceling, "journal:begin")
    world.finish(world.worker("k1"))

    world.finish(canceling)

    assert world.row().state == S.ACCEPTED
    world.settle()
    assert states(world) == {"k1": S.CANCELED, "c1": S.DONE}
    assert world.exchange.orders[0].status == "CANCELED"


def test_cancel_of_an_order_in_doubt_bars_its_resend_and_cancels_what_is_found(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90), valid_for_s=LONG)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")
    cancel(world)
    world.finish(world.worker("c1"))
    assert world.row().cancel_requested
    assert world.row("c1").state == S.RECEIVED

    world.exchange.stuck_at_ms.clear()
    world.settle()

    assert states(world) == {"k1": S.CANCELED, "c1": S.DONE}
    assert world.exchange.orders[0].status == "CANCELED"


def test_cancel_of_a_lost_order_in_doubt_keeps_it_from_being_sent_again(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90), valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    cancel(world)
    world.finish(world.worker("c1"))
    world.pass_time(4_000)
    world.exchange.foreign_order(SYMBOL)

    world.reconcile_for(45)
    world.settle()

    assert states(world) == {"k1": S.EXPIRED, "c1": S.DONE}
    assert (len(world.attempts()), world.executions()) == (1, 0)


def test_cancel_takes_the_quantity_that_was_filled_before_it_and_not_one_read_earlier(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90), quantity=Decimal(3))
    world.finish(world.worker("k1"))
    cancel(world)
    canceling = world.worker("c1")
    world.run_until(canceling, "send:cancel")
    world.exchange.fill(world.exchange.orders[0], Decimal(1))

    world.finish(canceling, send_cancel="answer_lost")
    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.CANCELED, Decimal(1))
    assert world.row("c1").state == S.DONE


def test_late_answer_of_a_cancel_that_another_process_finished_still_tells_of_the_order(world: World) -> None:
    """Proof is welcome from anyone: the stale owner's answer must not be thrown away with its move."""
    world.order(order_type="LIMIT", price=Decimal(90))
    world.finish(world.worker("k1"))
    cancel(world)
    stale = world.worker("c1")
    world.run_until(stale, "answer:cancel")
    with world.journal.write() as connection:
        table = schema.intents
        connection.execute(table.update().where(table.c.key == "c1").values(state="DONE", run_at_ms=None))

    world.finish(stale)

    assert states(world) == {"k1": S.CANCELED, "c1": S.DONE}
