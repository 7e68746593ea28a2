"""What must hold after every step, and at the end, judged by the exchange's own history."""

from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import select

from app.job_safety.outcome import Venue
from app.job_safety.state import LIVE, ON_EXCHANGE, TERMINAL_STATES, IntentState
from app.journal import meta, schema
from app.journal.fence import is_before
from app.journal.rows import IntentRow
from app.money import total
from tests.safety.simulation.exchange import Order
from tests.safety.simulation.world import SYMBOL, World

S = IntentState


class BrokenInvariantError(AssertionError):
    """A promise of the protocol did not hold."""


def check_step(world: World, *, is_lag_bounded: bool) -> None:
    """Check what must hold at every moment.

    Args:
        world: As it stands.
        is_lag_bounded: Whether the read side is never further behind than `max_read_lag`. Only then is the lesser
            evidence, on which an order is closed or a reduction is sent again, always right.
    """
    if world.exchange.blind_sends:
        raise BrokenInvariantError(f"I4: {world.exchange.blind_sends}")
    if world.watch.breaches:
        raise BrokenInvariantError(f"I4, I5: {world.watch.breaches}")
    with world.journal.read() as connection:
        seen = [_Seen(*row) for row in connection.exec_driver_sql(_SEEN)]
        stamp = meta.load(connection)
    for one in seen:
        # A journal that was rolled back may not know better until it has looked.
        is_forgetful = stamp.restored_at_ms is not None and is_before(one.fence, stamp.epoch)
        _check_seen(world, one, is_lag_bounded=is_lag_bounded, is_forgetful=is_forgetful)
    ours = {one.client_order_id for one in seen}
    strays = [order.request.client_order_id for order in world.exchange.orders if _is_ours(order)]
    if not ours.issuperset(strays):
        raise BrokenInvariantError("the exchange has an order of ours that no intent explains")


_SEEN = (
    "SELECT key, state, fence, client_order_id, opens_risk, executed_quantity,"
    " EXISTS (SELECT 1 FROM followups WHERE intent_key = intents.key AND kind = 'fetch_fills')"
    " FROM intents WHERE client_order_id IS NOT NULL"
)


class _Seen(NamedTuple):
    """What is looked at after every step: read without the ORM, since it is read very often."""

    key: str
    state: str
    fence: int
    client_order_id: str
    opens_risk: bool
    executed: str | None
    has_followup: bool


def _is_ours(order: Order) -> bool:
    return order.request.client_order_id.startswith("fo-")


def _check_seen(world: World, row: _Seen, *, is_lag_bounded: bool, is_forgetful: bool) -> None:
    executed = world.exchange.executions(row.client_order_id)
    if len(executed) > 1:
        raise BrokenInvariantError(f"I1: {row.key} was executed {len(executed)} times")
    if row.state in ON_EXCHANGE and not executed:
        raise BrokenInvariantError(f"{row.key} is {row.state}, and the exchange never had it")
    if row.executed is not None and Decimal(row.executed) > 0 and not row.has_followup:
        raise BrokenInvariantError(f"I2: {row.key} has executed {row.executed}, and nobody is asked to fetch its fills")
    is_or_can_be = bool(executed) or world.exchange.is_on_its_way(row.client_order_id)
    if not is_or_can_be or is_forgetful:
        return
    if row.state == S.RETRY_WAIT and (row.opens_risk or is_lag_bounded):
        raise BrokenInvariantError(f"I4: {row.key} may be sent again, and was or can be executed")
    if row.state in {S.REJECTED, S.RECEIVED}:
        raise BrokenInvariantError(f"{row.key} is {row.state}, and was or can be executed")
    if row.state == S.EXPIRED and is_lag_bounded:
        raise BrokenInvariantError(f"{row.key} is EXPIRED, and was or can be executed")


def check_resting(world: World) -> None:
    """Check that every open order of ours is followed by the journal."""
    rows = {row.client_order_id: row for row in world.rows()}
    for order in world.exchange.orders:
        row = rows.get(order.request.client_order_id)
        if row is not None and order.status in {"NEW", "PARTIALLY_FILLED"} and row.state not in LIVE:
            raise BrokenInvariantError(f"{row.key} is {row.state}, and its order rests at the exchange")


def check_end(world: World) -> None:
    """Check what must hold once faults have ended and time has passed: nothing lost, and exact books."""
    rows = {row.key: row for row in world.rows()}
    for row in rows.values():
        if row.type == "cancel":
            waits_for_a_person = rows[row.parent_key or ""].state is S.QUARANTINED
            if row.state not in {S.DONE, S.REJECTED} and not waits_for_a_person:
                raise BrokenInvariantError(f"I2: the cancel {row.key} ended as {row.state}")
        else:
            _check_order(world, row)
    with world.journal.read() as connection:
        booked = world.hand.books.position(connection, venue=Venue.USDM, symbol=SYMBOL)
    if booked != world.exchange.position(SYMBOL):
        raise BrokenInvariantError(f"I3: booked {booked}, held {world.exchange.position(SYMBOL)}")


def _check_order(world: World, row: IntentRow) -> None:
    executed = world.exchange.executions(row.client_order_id or "")
    if not executed:
        if row.state not in TERMINAL_STATES and row.state is not S.QUARANTINED:
            raise BrokenInvariantError(f"I2: {row.key} ended as {row.state}: {row.reason}")
        return
    (order,) = executed
    told = (row.state.value, row.executed_quantity or Decimal(0), row.exchange_order_id)
    if told != (order.status, order.executed, order.order_id) and not (row.state in LIVE and order.status == "NEW"):
        raise BrokenInvariantError(f"{row.key} is {told}, the exchange says {order.status} {order.executed}")
    fills = schema.fills.c
    with world.journal.read() as connection:
        quantities = connection.execute(select(fills.quantity).where(fills.key == row.key)).scalars()
        if total(quantities) != order.executed:
            raise BrokenInvariantError(f"I3: the fills of {row.key} do not add up to {order.executed}")
