"""Protections of the protocol that the ten counterexamples do not need, each by a script that it alone withstands."""

import contextlib
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from app.exchange.errors import ExchangeQueryError
from app.exchange.models import PinnedCancel
from app.execution import settle as settling
from app.execution.fills import fetch_fills
from app.intents import CancelIntent
from app.job_safety.errors import InvariantViolatedError, LeaseLostError, StoreUnavailableError
from app.job_safety.outcome import ExchangeOrder, NotSent, Venue
from app.job_safety.state import IntentState
from app.journal import attempts, followups, intents, schema, standing
from tests.safety.simulation.exchange import QUERIES, Order
from tests.safety.simulation.ports import NAMES
from tests.safety.simulation.scheduler import Process
from tests.safety.simulation.world import LONG, SYMBOL, World, sweep

S = IntentState


def stop_showing(world: World, *, but: tuple[str, ...] = ()) -> None:
    """From now on the read side shows nothing new, except to the questions `but`."""
    world.exchange.stuck_at_ms = {query: world.clock.now_ms() - 1 for query in QUERIES if query not in but}


# What is sent


def test_request_carries_the_timestamp_that_the_journal_holds(world: World) -> None:
    """A short pause between the two must not show: the journal's is the one that reconcile waits for."""
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "fault:before_send")
    world.pass_time(400)

    world.finish(worker)

    (attempt,), (flight,) = world.attempts(), world.exchange.flights
    assert flight.request.timestamp_ms == attempt.timestamp_ms == world.clock.now_ms() - 400


@pytest.mark.parametrize("ahead_ms", [5_000, 900, -900, -5_000])
def test_timestamp_is_pinned_by_the_exchanges_clock(world: World, ahead_ms: int) -> None:
    world.local_ahead_ms = ahead_ms
    world.order()

    world.finish(world.worker("k1"))

    assert [flight.request.timestamp_ms for flight in world.exchange.flights] == [world.clock.now_ms()]
    assert world.row().state == S.FILLED


def test_request_whose_timestamp_is_half_a_second_old_is_not_sent(world: World) -> None:
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "fault:before_send")
    world.pass_time(501)

    world.run_until(worker, "send:place")

    first, second = world.attempts()
    assert (first.outcome, world.exchange.flights) == ("NOT_SENT", [])
    assert second.timestamp_ms > first.timestamp_ms + 490


@pytest.mark.parametrize("fault", ["commit_lost", "down"])
def test_nothing_is_sent_on_a_commit_that_was_not_answered(world: World, fault: str) -> None:
    world.order()
    worker = world.worker("k1")

    with pytest.raises(StoreUnavailableError):
        world.finish(worker, journal_begin=fault)

    assert (world.row().state, world.exchange.flights) == (S.RECEIVED, [])


def test_commit_whose_answer_was_lost_is_not_won_although_it_is_in_the_journal(world: World) -> None:
    world.order()
    worker = world.worker("k1")

    with pytest.raises(StoreUnavailableError):
        world.finish(worker, journal_committed="answer_lost")

    assert (world.row().state, world.exchange.flights) == (S.RETRY_WAIT, [])
    assert [attempt.outcome for attempt in world.attempts()] == ["NOT_SENT"]


def test_order_that_was_canceled_while_its_worker_was_paused_is_not_sent_again(world: World) -> None:
    """The cancel met it as dispatched and left its mark; the worker then finds that it did not send."""
    world.order(valid_for_s=LONG)
    worker = world.worker("k1")
    world.run_until(worker, "fault:before_send")
    world.enqueue(CancelIntent(key="c1", order_key="k1"))
    world.finish(world.worker("c1"))
    world.pass_time(600)

    world.finish(worker)
    world.settle()

    assert (world.row().state, world.row("c1").state, world.exchange.flights) == (S.EXPIRED, S.DONE, [])


def test_order_that_the_exchange_has_confirmed_is_not_dispatched_whatever_its_row_says(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"))
    with world.journal.write() as connection:
        connection.execute(schema.intents.update().values(state=S.RETRY_WAIT.value, exchange_order_id=None))

    with pytest.raises(InvariantViolatedError, match="must not be sent"):
        world.finish(world.worker("k1"))

    assert world.executions() == 1


def test_first_attempt_is_dispatched_without_reading_again_what_decides(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared as the row is moved."""
    world.order()
    worker = world.worker("k1")
    with monkeypatch.context() as here:
        here.delattr(standing, "hold")
        world.finish(worker)

    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_plain_answer_to_a_first_attempt_is_journaled_without_reading_the_row_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared as it is moved."""
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "fault:in_settle_transaction")
    with monkeypatch.context() as here:
        here.delattr(intents, "load")
        world.finish(worker)

    assert (world.row().state, [attempt.outcome for attempt in world.attempts()]) == (S.FILLED, ["ACCEPTED"])


def test_answer_that_tells_of_another_order_than_was_asked_for_is_taken_with_an_alarm(world: World) -> None:
    world.order()
    world.run_until(world.worker("k1"), "fault:after_dispatch_commit")
    row, (attempt,) = world.row(), world.attempts()
    order = ExchangeOrder(
        venue=Venue.USDM, symbol=SYMBOL, order_id=7, client_order_id=attempt.client_order_id, side="BUY",
        order_type="MARKET", status="FILLED", quantity=Decimal(2), executed_quantity=Decimal(2),
    )  # fmt: skip

    settling.settle_accepted(world.hand, attempt, order, row)

    assert world.row().state == S.FILLED
    with world.journal.read() as connection:
        alerts = followups.open_of_kind(connection, followups.ALERT, now_ms=world.clock.now_ms() + LONG, limit=9)
    assert ["order_differs" in str(one.payload) for one in alerts] == [True]


# Two who are at it


def test_paused_worker_does_not_send_what_another_has_dispatched_meanwhile(world: World) -> None:
    world.order(valid_for_s=LONG)
    paused = world.worker("k1")
    world.run_until(paused, "journal:begin")
    paused.is_frozen = True
    world.pass_time(5_000)
    other = world.worker("k1")
    world.run_until(other, "answer:place")
    paused.is_frozen = False

    world.finish(paused)

    assert (len(world.exchange.flights), world.executions()) == (1, 1)
    world.finish(other)
    assert (world.row().state, len(world.attempts())) == (S.FILLED, 1)


def test_worker_whose_commit_was_lost_does_not_disown_what_another_has_dispatched_meanwhile(world: World) -> None:
    """Both are attempt 1 with the same fence, since the first one left nothing: only the owner tells them apart."""
    world.order(valid_for_s=LONG)
    loser = world.worker("k1")
    world.run_until(loser, "journal:begin")
    loser.go("commit_lost")
    world.run_until(loser, "journal:begin")
    loser.is_frozen = True
    world.redis.flushall()
    world.pass_time(5_000)
    other = world.worker("k1")
    world.run_until(other, "answer:place")
    loser.is_frozen = False

    with pytest.raises(StoreUnavailableError):
        world.finish(loser)

    assert (world.row().state, world.attempts()[0].outcome) == (S.DISPATCHED, None)
    world.finish(other)
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


@pytest.mark.parametrize("then", [None, "down", "commit_lost"])
def test_dispatch_that_was_rolled_back_for_another_change_sends_nothing_if_it_is_too_late_the_second_time(
    world: World, then: str | None
) -> None:
    world.order(valid_for_s=LONG)
    first = world.worker("k1")
    world.run_until(first, "journal:begin")
    first.go("broken_off")
    world.run_until(first, "journal:begin")
    first.is_frozen = True
    world.redis.flushall()
    world.pass_time(5_000)
    other = world.worker("k1")
    world.run_until(other, "answer:place")
    first.is_frozen = False

    with contextlib.suppress(StoreUnavailableError, LeaseLostError):
        world.finish(first, **({} if then is None else {"journal_begin": then}))

    assert len(world.exchange.flights) == 1
    assert (world.row().state, world.attempts()[0].outcome) == (S.DISPATCHED, None)
    world.finish(other)
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_dispatch_that_was_rolled_back_for_another_change_is_sent_once(world: World) -> None:
    world.order(valid_for_s=LONG)
    worker = world.worker("k1")
    world.run_until(worker, "journal:begin")
    world.finish(worker, journal_begin="broken_off")
    assert (world.row().state, len(world.attempts()), world.executions()) == (S.FILLED, 1, 1)


def test_zombie_from_before_a_restore_does_not_settle_the_attempt_of_its_successor(world: World) -> None:
    """Both are attempt 1 of the same order, and the row is DISPATCHED: only the fence tells them apart."""
    world.order(valid_for_s=LONG)
    backup = world.snapshot()
    zombie = world.worker("k1")
    world.run_until(zombie, "fault:before_send")
    zombie.is_frozen = True
    world.roll_back(backup)
    world.redis.flushall()
    world.pass_time(25_000)
    successor = world.worker("k1")
    world.run_until(successor, "answer:place")
    zombie.is_frozen = False

    world.finish(zombie)

    assert (world.row().state, world.attempts()[0].outcome) == (S.DISPATCHED, None)
    world.finish(successor)
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def reconciler_before_its_verdict(world: World) -> Process:
    """Return a reconciler that is stopped where it would write its verdict, while another has just written the same."""
    for _ in range(40):
        world.pass_time(1_000)
        paused = world.reconciler("k1")
        while not paused.is_finished and paused.where != "ask:all_orders":
            paused.go()
        if paused.is_finished:
            continue
        world.run_until(paused, "journal:begin")
        paused.is_frozen = True
        world.redis.flushall()
        world.finish(world.reconciler("k1"))
        if world.row().state is S.RETRY_WAIT:
            return paused
        paused.is_frozen = False
        world.finish(paused)
    raise AssertionError("absence was never proven")


def test_reconciler_that_was_paused_does_not_undo_what_was_settled_meanwhile(world: World) -> None:
    """It holds a verdict of absence; meanwhile the order was proven absent, sent again, and is on its way."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(4_000)
    world.exchange.foreign_order(SYMBOL)
    paused = reconciler_before_its_verdict(world)

    successor = world.worker("k1")
    world.run_until(successor, "answer:place")
    before = world.row()

    paused.is_frozen = False
    world.finish(paused)

    assert world.row() == before
    world.finish(successor)
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_worker_that_finds_a_living_lease_leaves_the_order_alone(world: World) -> None:
    world.order()
    owner = world.worker("k1")
    world.run_until(owner, "journal:begin")

    assert world.finish(world.worker("k1")).startswith(f"held by {owner.name}#")

    world.finish(owner)
    assert (world.row().state, len(world.attempts())) == (S.FILLED, 1)


def test_stale_owner_that_settled_nothing_does_not_take_its_successors_lease_away(world: World) -> None:
    world.order()
    stale = world.worker("k1")
    world.run_until(stale, "fault:after_settle_commit", send_place="answer_lost")
    stale.is_frozen = True
    world.pass_time(5_000)
    guard = NAMES.guard("order", "k1")
    world.redis.set(guard, "L:successor#1", px=4_000)

    stale.is_frozen = False
    world.finish(stale)

    assert world.redis.get(guard) == b"L:successor#1"


def test_dispatched_order_of_a_living_owner_is_left_to_its_owner(world: World) -> None:
    world.order()
    owner = world.worker("k1")
    world.run_until(owner, "answer:place")

    assert world.finish(world.reconciler("k1")).endswith("works on it")

    assert world.row().state == S.DISPATCHED


# What nobody knows


def test_quarantined_order_closes_its_symbol_for_what_opens_risk_until_it_is_settled(world: World) -> None:
    world.order(valid_for_s=LONG)
    stop_showing(world, but=("trades",))
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.reconcile_for(150)
    assert (world.row().state, world.alarms("quarantined")) == (S.QUARANTINED, 1)

    world.order("k2", valid_for_s=LONG)
    world.order("k3", reduce_only=True, side="SELL")
    world.finish(world.worker("k2"))
    world.finish(world.worker("k3"))

    assert (world.row("k2").state, world.row("k3").state) == (S.RECEIVED, S.FILLED)
    world.exchange.stuck_at_ms.clear()
    world.settle()
    assert {row.state for row in world.rows()} == {S.FILLED}


def test_quarantined_order_stays_under_reconcile_and_is_settled_by_what_is_found(world: World) -> None:
    world.order(valid_for_s=LONG)
    stop_showing(world, but=("trades",))
    world.finish(world.worker("k1"), send_place="answer_lost")
    for _ in range(150):
        if world.row().state is not S.QUARANTINED:  # nobody asks once it is: that would go on by itself
            world.reconcile_for(1)
    assert world.row().state == S.QUARANTINED
    world.exchange.stuck_at_ms.clear()
    world.pass_time(31_000)

    with world.journal.read() as connection:
        due = intents.doubts_due(connection, venue="usdm", now_ms=world.clock.now_ms(), limit=10)
    assert [row.key for row in due] == ["k1"]
    world.finish(world.reconciler("k1"))

    assert world.row().state == S.FILLED


def canceled_with_a_late_fill(world: World) -> Order:
    """Have an order that the journal holds for canceled without a trade, and of which a third was executed."""
    world.order(order_type="LIMIT", price=Decimal(90), quantity=Decimal(3))
    world.finish(world.worker("k1"))
    order = world.exchange.orders[0]
    before = order.seen_at(world.clock.now_ms())
    assert before is not None
    world.exchange.fill(order, before.quantity / 3)
    world.exchange.cancel(
        PinnedCancel(
            venue=Venue.USDM, symbol=SYMBOL, timestamp_ms=1, recv_window_ms=3_000, order_id=order.order_id,
            client_order_id=before.client_order_id,
        )
    )  # fmt: skip
    with world.journal.write() as connection:
        table = schema.intents
        connection.execute(table.update().values(state=S.CANCELED.value, executed_quantity=before.executed_quantity))
    return order


def test_late_fill_of_a_canceled_order_is_taken_in(world: World) -> None:
    """It traded between the cancel and its confirmation, and the first answer did not know of that yet."""
    order = canceled_with_a_late_fill(world)

    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.CANCELED, order.executed)


def test_cancel_that_found_no_order_asks_before_it_calls_itself_done(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90))
    world.finish(world.worker("k1"))
    world.enqueue(CancelIntent(key="c1", order_key="k1"))

    world.finish(world.worker("c1"), send_cancel="lost")

    assert world.row("c1").state == S.IN_DOUBT
    world.settle()
    assert (world.row("c1").state, world.exchange.orders[0].status) == (S.DONE, "CANCELED")


# What counts as evidence


def test_question_that_was_not_answered_is_no_evidence(world: World) -> None:
    """The order is shown to nobody, and its witness to everybody; but the question for it is never answered."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(4_000)
    world.exchange.foreign_order(SYMBOL)

    for _ in range(45):
        world.pass_time(1_000)
        world.finish(world.reconciler("k1"), ask_get_order="unanswered")

    assert (world.row().state, len(world.attempts())) == (S.IN_DOUBT, 1)
    assert world.attempts()[0].evidence is None


@pytest.mark.parametrize("ahead_ms", [5_000, -5_000])
def test_fence_goes_by_the_exchanges_clock(world: World, ahead_ms: int) -> None:
    world.local_ahead_ms = ahead_ms
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    for _ in range(4):
        world.pass_time(1_000)
        world.finish(world.reconciler("k1"))
    assert world.attempts()[0].evidence is None or '"absent_count": 0' in world.attempts()[0].evidence

    world.pass_time(1_001)
    world.finish(world.reconciler("k1"))

    assert '"absent_count": 1' in (world.attempts()[0].evidence or "")


def asked_until_sendable(world: World) -> int:
    """Return how often the order had to be asked for until it could be sent again."""
    count = 0
    while world.row().state is not S.RETRY_WAIT:
        assert count < 60
        world.pass_time(1_000)
        world.exchange.foreign_order(SYMBOL)
        world.finish(world.reconciler("k1"))
        count += 1
    return count


def test_second_doubt_is_settled_by_answers_of_its_own(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(30_000)
    first = asked_until_sendable(world)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(30_000)

    assert asked_until_sendable(world) == first > 3


def test_refusal_that_casts_doubt_on_an_absence_starts_the_evidence_anew(world: World) -> None:
    world.resend_reduction("lost")
    world.finish(world.worker("k1"), send_place="refused")

    assert world.row().state == S.IN_DOUBT
    assert [(attempt.outcome, attempt.evidence) for attempt in world.attempts()] == [(None, None), ("REFUSED", None)]


def test_list_looks_back_far_enough_to_hold_an_order_of_an_engine_whose_clock_is_behind(world: World) -> None:
    """Only the list is up to date. The engine dates the order a second before our own timestamp."""
    world.exchange.engine_behind_ms = 1_000
    world.order(valid_for_s=LONG)
    stop_showing(world, but=("all_orders",))
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.pass_time(30_000)
    world.exchange.foreign_order(SYMBOL)

    world.reconcile_for(20)

    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_absence_is_not_proven_while_the_venue_leaves_things_unknown(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.order("k2", order_type="LIMIT", price=Decimal(90), valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(29_000)
    world.exchange.foreign_order(SYMBOL)
    world.finish(world.worker("k2"), send_place="503_unknown")

    world.reconcile_for(29)
    assert world.row().state == S.IN_DOUBT

    world.reconcile_for(3)
    assert world.row().state != S.IN_DOUBT


def test_exit_is_not_sent_again_before_the_longest_lag_of_the_read_side_is_over(world: World) -> None:
    """It needs no witness, so that time alone stands between a lagging answer and a second exit."""
    world.exchange.lag_everywhere(14_000)
    world.order(reduce_only=True, side="SELL")
    world.finish(world.worker("k1"), send_place="answer_lost")

    world.reconcile_for(25)

    assert (world.row().state, world.executions(), len(world.attempts())) == (S.FILLED, 1, 1)


def test_order_is_not_closed_while_a_trade_that_could_be_its_own_is_not_explained(world: World) -> None:
    """The lists lag further than they ever should; the list of trades does not."""
    world.order()
    stop_showing(world, but=("trades",))
    world.finish(world.worker("k1"), send_place="answer_lost")

    world.reconcile_for(60)

    assert world.row().state == S.IN_DOUBT


# What is written together


def test_fills_are_asked_for_in_the_transaction_that_journals_the_answer(world: World) -> None:
    world.order()
    worker = world.worker("k1")
    world.run_until(worker, "fault:after_settle_commit")
    worker.kill()

    assert world.row().state == S.FILLED
    with world.journal.read() as connection:
        assert len(followups.open_of_intent(connection, "k1", ["fetch_fills"])) == 1


def test_followup_is_done_only_if_its_trades_are_booked(world: World) -> None:
    world.order()
    world.finish(world.worker("k1"))
    with world.journal.read() as connection:
        (followup,) = followups.open_of_intent(connection, "k1", ["fetch_fills"])
    bookkeeper = world.start("bookkeeper", lambda context: fetch_fills(context, followup))
    world.run_until(bookkeeper, "fault:in_fills_transaction")
    bookkeeper.kill()

    with world.journal.read() as connection:
        assert followups.open_of_intent(connection, "k1", ["fetch_fills"]) == [followup]
        assert connection.execute(select(func.count()).select_from(schema.fills)).scalar() == 0


def test_followup_stays_open_until_all_of_its_trades_are_visible(world: World) -> None:
    world.order(order_type="LIMIT", price=Decimal(90), quantity=Decimal(2))
    world.finish(world.worker("k1"))
    for _ in range(2):
        world.exchange.fill(world.exchange.orders[0], world.exchange.orders[0].request.quantity / 2)
        world.pass_time(1_000)
    world.exchange.stuck_at_ms = {"trades": world.clock.now_ms() - 1_500}
    world.round()
    world.round()

    with world.journal.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.fills)).scalar() == 1
        assert len(followups.open_of_intent(connection, "k1", ["fetch_fills"])) == 1


def test_trade_that_is_told_twice_at_different_times_is_booked_once(world: World) -> None:
    world.order()
    world.finish(world.worker("k1"))
    world.settle()
    trades = world.hand.gateway.newest_trades(Venue.USDM, SYMBOL)
    for _ in range(2):
        world.pass_time(1_000)
        with world.journal.write() as connection:
            now_ms = world.clock.now_ms()
            assert not world.hand.books.record_fills(connection, trades=trades, key="k1", now_ms=now_ms)

    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=Venue.USDM, symbol=SYMBOL) == 1
        assert connection.execute(select(func.count()).select_from(schema.fills)).scalar() == 1


def test_sweep_that_died_before_it_booked_looks_at_the_same_trades_again(world: World) -> None:
    world.exchange.foreign_order(SYMBOL)
    sweep(world.hand)
    world.exchange.foreign_order(SYMBOL)
    for point in range(1, 40):
        dying = world.start("sweeper", sweep)
        for _ in range(point):
            if not dying.is_finished:
                dying.go()
        if dying.is_finished:
            break
        dying.kill()
    sweep(world.hand)

    assert not dying.is_dead, "no sweep came to its end"
    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=Venue.USDM, symbol=SYMBOL) == -14


def test_sweep_asks_nothing_about_orders_that_traded_what_they_said(world: World) -> None:
    for number in range(1, 4):
        world.order(f"k{number}")
        world.finish(world.worker(f"k{number}"))
    points: list[str] = []
    world.hand_process.reply_inline = points.append

    assert sweep(world.hand) == "3 trades"

    assert [point for point in points if point == "ask:get_order"] == []
    assert points.count("journal:begin") < 4 * 3


def test_sweep_that_died_before_it_asked_for_the_end_of_an_order_asks_the_next_time(world: World) -> None:
    order = canceled_with_a_late_fill(world)
    dying = world.start("sweeper", sweep)
    world.run_until(dying, "ask:get_order")
    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=Venue.USDM, symbol=SYMBOL) == 1
    dying.kill()
    assert world.row().executed_quantity == 0

    sweep(world.hand)

    assert (world.row().state, world.row().executed_quantity) == (S.CANCELED, order.executed)


def test_question_that_is_not_answered_holds_up_nobody_elses_fills(world: World) -> None:
    world.exchange.foreign_order(SYMBOL)
    world.order()
    world.finish(world.worker("k1"))
    sweeper = world.start("sweeper", sweep)

    with pytest.raises(ExchangeQueryError):
        world.finish(sweeper, ask_get_order="unanswered")

    assert booked_keys(world) == ["k1"]
    sweep(world.hand)
    assert booked_keys(world) == ["k1", None], "what was not answered is asked again"


def test_trade_that_contradicts_the_books_holds_up_nobody_elses_fills(world: World) -> None:
    for key in ("k1", "k2", "k3"):
        world.order(key)
        world.finish(world.worker(key))
    told = world.hand.gateway.newest_trades(Venue.USDM, SYMBOL)
    lie = replace(told[0], price=told[0].price + 1)
    with world.journal.write() as connection:
        world.hand.books.record_fills(connection, trades=[lie], key="k1", now_ms=world.clock.now_ms())

    with pytest.raises(InvariantViolatedError):
        sweep(world.hand)

    assert booked_keys(world) == ["k1", "k2", "k3"]


def booked_keys(world: World) -> list[str | None]:
    """Return whose trades are in the books, ours first."""
    with world.journal.read() as connection:
        return sorted(connection.execute(select(schema.fills.c.key)).scalars(), key=lambda key: (key is None, key))


def test_claim_that_nothing_was_sent_counts_only_from_the_attempt_that_holds_the_row(world: World) -> None:
    """Attempt 1 is in doubt by now; its owner wakes up and says that it did not send."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")

    settling.settle(world.hand, world.attempts()[0], NotSent(reason="woken late"), is_snooze=True)

    assert world.row().state == S.IN_DOUBT
    with world.journal.read() as connection:
        assert [one.outcome for one in attempts.of_intent(connection, "k1")] == [None]
