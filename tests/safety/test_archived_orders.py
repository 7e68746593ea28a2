"""What the exchange tells late of an order that is archived is still known to be ours."""

from decimal import Decimal

import pytest
from sqlalchemy import update

from app.books import handlers
from app.books.booking import POST_LEDGER, POST_PNL
from app.intents import OrderIntent
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.state import IntentState
from app.journal import archive, archiving, attempt_seals, intents, schema
from app.journal.intents import Taken
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.world import LONG, SYMBOL, TERMS, World

S = IntentState
DAY_MS = 24 * 3_600_000


def archive_all(world: World) -> int:
    """Finish the books, let three months pass, and archive."""
    with world.journal.write() as connection:
        for kind in (POST_LEDGER, POST_PNL):
            handlers.drain(connection, kind, now_ms=world.clock.now_ms())
    with world.journal.write() as connection:
        attempt_seals.seal(connection, now_ms=world.clock.now_ms(), by="keeper")
    world.clock.advance(100 * DAY_MS)
    return archiving.run(world.journal, world.clock, older_than_ms=90 * DAY_MS, by="test").archived


def is_archived(world: World, key: str = "k1") -> bool:
    with world.journal.read() as connection:
        return archive.find(connection, key) is not None


def test_late_fill_of_an_archived_order_is_booked_to_it_and_is_an_alarm(world: World) -> None:
    """Closed as expired while the read side of the exchange stood still, archived, and then found to have filled."""
    world.order()
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.reconcile_for(40)
    assert world.row().state == S.EXPIRED
    assert archive_all(world) == 1

    world.exchange.stuck_at_ms.clear()
    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.FILLED, Decimal(1))
    assert not is_archived(world)
    assert world.alarms("late_fill") == 1
    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=world.exchange.orders[0].request.venue, symbol=SYMBOL) == 1


def test_archived_order_is_not_sent_again_by_a_stray_delivery_or_a_second_enqueue(world: World) -> None:
    intent = OrderIntent(key="k1", symbol=SYMBOL, side="BUY", quantity=Decimal(1))
    world.enqueue(intent)
    world.finish(world.worker("k1"))
    world.settle()
    assert world.row().state == S.FILLED
    before = world.row()
    assert archive_all(world) == 1

    assert "FILLED" in world.finish(world.worker("k1"))
    with world.journal.write() as connection:
        again = intents.insert(connection, [TERMS.row(intent, world.local_ms())])
    world.settle()

    assert again == [Taken.DUPLICATE]
    assert world.row()._replace(booked_at_ms=None) == before
    assert (world.executions(), is_archived(world)) == (1, True)


def test_archived_order_is_not_dispatched_whatever_its_row_says(world: World) -> None:
    """Its proofs are in the archive, where no dispatch looks: that it is archived bars it."""
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"))
    world.settle()
    assert archive_all(world) == 1
    forged = {"state": S.RETRY_WAIT.value, "valid_until_ms": world.clock.now_ms() + DAY_MS}
    with world.journal.write() as connection:
        connection.execute(update(schema.intents).values(**forged))

    with pytest.raises(InvariantViolatedError, match="must not be sent"):
        world.finish(world.worker("k1"))

    assert world.executions() == 1


def test_trades_of_an_archived_order_that_are_told_again_change_nothing(world: World) -> None:
    world.order()
    world.finish(world.worker("k1"))
    world.settle()
    assert archive_all(world) == 1
    with world.journal.write() as connection:
        connection.exec_driver_sql("UPDATE watermarks SET swept_trade_id = -1")

    world.settle()

    with world.journal.read() as connection:
        assert world.hand.books.position(connection, venue=world.exchange.orders[0].request.venue, symbol=SYMBOL) == 1
    assert (world.row().state, is_archived(world)) == (S.FILLED, True)
