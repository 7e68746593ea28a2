"""Turn a signal into its order intent, its quantity rounded down to the exchange's steps: one order per signal."""

from app.exchange.errors import ExchangeQueryError
from app.execution.alone import be_alone_with
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.execution.parcels import parcel_of
from app.intents import MAX_VALID_FOR_S, OrderIntent, SignalIntent, canonical, content_hash, from_canonical
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.keys import client_order_id, digest
from app.job_safety.outcome import Venue
from app.job_safety.state import IntentState
from app.journal import intents
from app.journal.intents import NewIntent, Taken
from app.journal.rows import IntentRow

ORDER_SUFFIX = ":order"
MAX_KEY = 200
LOOK_AGAIN_MS = 1_000


def run_signal(context: ExecutionContext, key: str) -> str:
    """Write the order of the signal `key` and finish the signal, in one transaction; return where it stands.

    Raises:
        IntentNotFoundError: the journal does not know the key.
        StoreUnavailableError: the journal does not answer.
        NotAloneError: a worker has died of it, and this process is at other work too.
    """
    with context.journal.read() as connection:
        row = intents.load(connection, key)
    be_alone_with(context, row)
    signal = from_canonical(row.content)
    if not isinstance(signal, SignalIntent):
        raise InvariantViolatedError(f"{key} is a {row.type}, not a signal")
    if row.state is not IntentState.RECEIVED:
        return row.state.value  # done before, or quarantined: a person's word comes first
    now_ms = context.clock.now_ms()
    if row.valid_until_ms is not None and now_ms >= row.valid_until_ms:
        return _finish(context, row, IntentState.EXPIRED, "validity ran out before it became an order")
    try:
        rules = context.rules.rules(Venue(signal.venue), signal.symbol)
    except ExchangeQueryError as error:
        return _later(context, row, str(error))
    if rules is None:
        return _finish(context, row, IntentState.REJECTED, f"{signal.symbol} is not traded on {signal.venue}")
    quantity = rules.round_quantity(signal.quantity, signal.order_type)
    if quantity <= 0:
        return _finish(
            context, row, IntentState.REJECTED, f"quantity {signal.quantity} is below one step of the exchange"
        )
    price = None if signal.price is None else rules.round_price(signal.price)
    order = OrderIntent(
        key=_order_key(key),
        venue=signal.venue,
        symbol=signal.symbol,
        side=signal.side,
        order_type=signal.order_type,
        quantity=quantity,
        price=price,
        reduce_only=signal.reduce_only,
        valid_for_s=_seconds_left(row, now_ms),
        strategy=signal.strategy,
    )
    new = _new_intent(context, order, row, now_ms)
    with context.journal.write() as connection:
        fresh = intents.load(connection, key, lock=True)
        if fresh.state is not IntentState.RECEIVED:
            return fresh.state.value
        if intents.insert(connection, [new]) == [Taken.CONFLICT]:
            why = f"another intent already has the key {order.key}"
            intents.move(connection, fresh, IntentState.REJECTED, now_ms=now_ms, reason=why, booked_at_ms=now_ms)
            return why
        reason = f"became {order.key}"
        intents.move(connection, fresh, IntentState.DONE, now_ms=now_ms, reason=reason, booked_at_ms=now_ms)
    context.record.event(
        "signal_became_order", level="debug", key=key, order=order.key, symbol=order.symbol, side=order.side
    )
    context.hand_over([parcel_of(new)])
    return reason


def _order_key(signal_key: str) -> str:
    if len(signal_key) + len(ORDER_SUFFIX) <= MAX_KEY:
        return f"{signal_key}{ORDER_SUFFIX}"
    return f"{signal_key[:120]}.{digest('signal', signal_key)}{ORDER_SUFFIX}"


def _seconds_left(row: IntentRow, now_ms: int) -> int | None:
    if row.valid_until_ms is None:
        return None
    return min(max(1, (row.valid_until_ms - now_ms) // 1000), MAX_VALID_FOR_S)


def _new_intent(context: ExecutionContext, order: OrderIntent, signal: IntentRow, now_ms: int) -> NewIntent:
    content = canonical(order)
    return NewIntent(
        key=order.key,
        type="order",
        queue="urgent" if order.is_urgent else "orders",
        content=content,
        content_hash=content_hash(content),
        opens_risk=order.opens_risk,
        created_at_ms=now_ms,
        run_at_ms=now_ms + REDELIVER_AFTER_MS,
        venue=order.venue,
        symbol=order.symbol,
        client_order_id=client_order_id(account=context.account, mode=context.mode, key=order.key),
        parent_key=signal.key,
        is_algo=order.venue == "usdm" and order.is_conditional,
        valid_until_ms=signal.valid_until_ms,
    )


def _finish(context: ExecutionContext, row: IntentRow, after: IntentState, reason: str) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state is IntentState.RECEIVED:
            intents.move(connection, fresh, after, now_ms=now_ms, reason=reason, booked_at_ms=now_ms)
    context.record.event("signal_finished", key=row.key, state=after.value, reason=reason)
    return f"{after.value}: {reason}"


def _later(context: ExecutionContext, row: IntentRow, why: str) -> str:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        fresh = intents.load(connection, row.key, lock=True)
        if fresh.state is IntentState.RECEIVED:
            intents.touch(connection, fresh, now_ms=now_ms, run_at_ms=now_ms + LOOK_AGAIN_MS, reason=why[:500])
    return f"waits: {why}"
