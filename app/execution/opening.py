"""The first look at an account: what it holds becomes opening entries, before the first order of ours goes out."""

from app.execution.context import ExecutionContext
from app.job_safety.errors import RetryableError
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.kill_switch import KillState
from app.job_safety.outcome import Venue
from app.journal import audit, meta, restore

MAX_TRIES = 5
HISTORY_MS = 7 * 24 * 3600 * 1000
"""How far back orders with our prefix are looked for when the journal has no history."""


class AccountMovesError(RetryableError):
    """Trades kept coming in while the account was read; it is tried again."""


def ensure_open(context: ExecutionContext, venue: Venue) -> bool:
    """Book the opening entries of `venue` unless they are; return whether this call did.

    A journal without history on an account that has orders of ours has been lost: it starts in HALT, in a new epoch,
    and every intent is looked up at the exchange before its first order. Otherwise the same intents would buy again.

    Raises:
        ExchangeQueryError: the account could not be read; nothing may be sent.
        AccountMovesError: it did not hold still.
    """
    with context.journal.read() as connection:
        if context.books.is_open(connection, venue):
            return False
    has_our_orders = _has_orders_of_ours(context, venue)
    for _ in range(MAX_TRIES):
        opened_at_ms = context.gateway.server_time(venue).server_time_ms
        before = _newest_trades(context, venue)
        balances = context.gateway.balances(venue)
        positions = context.gateway.positions() if venue is Venue.USDM else []
        if _newest_trades(context, venue) != before:
            continue
        now_ms = context.clock.now_ms()
        with context.journal.write() as connection:
            if context.books.is_open(connection, venue):
                return False
            context.books.book_opening(
                connection, venue=venue, balances=balances, positions=positions, watermarks=before, now_ms=opened_at_ms
            )
            if has_our_orders and restore.has_no_history(connection, venue=venue.value):
                why = "this journal is new, and the account has orders of ours: reconcile first"
                meta.set_kill_state(connection, state=KillState.HALT.value, reason=why)
                restore.new_epoch(connection, now_ms=max(now_ms, opened_at_ms))
                audit.append(
                    connection,
                    now_ms=now_ms,
                    actor=context.owner,
                    action="halt",
                    subject=venue.value,
                    detail={"why": why},
                )
        context.record.event("venue_opened", venue=venue.value, lost_history=has_our_orders)
        return True
    raise AccountMovesError(f"{venue}: trades kept coming in while the account was read; trying again")


def _newest_trades(context: ExecutionContext, venue: Venue) -> dict[str, int]:
    newest: dict[str, int] = {}
    for symbol in context.symbols.get(venue, ()):
        trades = context.gateway.newest_trades(venue, symbol)
        newest[symbol] = max((trade.trade_id for trade in trades), default=-1)
    return newest


def _has_orders_of_ours(context: ExecutionContext, venue: Venue) -> bool:
    with context.journal.read() as connection:
        if not restore.has_no_history(connection, venue=venue.value):
            return False
    since_ms = context.gateway.server_time(venue).server_time_ms - HISTORY_MS
    return any(
        order.client_order_id.startswith(CLIENT_ORDER_ID_PREFIX)
        for symbol in context.symbols.get(venue, ())
        for is_algo in ((False, True) if venue is Venue.USDM else (False,))
        for order in context.gateway.all_orders(venue, symbol, since_ms, is_algo=is_algo)
    )
