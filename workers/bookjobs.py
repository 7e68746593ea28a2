"""Book jobs that somebody enqueued: import a trade made elsewhere, or post a transaction."""

from typing import assert_never

from sqlalchemy import Connection

from app.books import ledger, pnl
from app.books.fills import Fill
from app.exchange.models import ExchangeTrade
from app.execution.alone import be_alone_with
from app.execution.context import ExecutionContext
from app.execution.fills import parcels_of
from app.intents import LedgerIntent, PnlIntent, PositionIntent, Trade, from_canonical
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue
from app.job_safety.state import IntentState
from app.journal import followups, intents
from app.money import EXACT

NOT_OPEN_MS = 2_000


def run_book_job(context: ExecutionContext, key: str) -> str:
    """Have the effect of the position, ledger or PnL intent `key` once; return where it stands.

    Raises:
        IntentNotFoundError: the journal does not know the key.
        StoreUnavailableError: the journal does not answer.
        NotAloneError: a worker has died of it, and this process is at other work too.
    """
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        row = intents.load(connection, key, lock=True)
        be_alone_with(context, row)
        if row.state is not IntentState.RECEIVED:
            return row.state.value  # done before, or quarantined: a person's word comes first
        if row.venue is not None and not context.books.is_open(connection, row.venue):
            # Its opening entries come first: they count every trade up to now.
            intents.touch(
                connection, row, now_ms=now_ms, run_at_ms=now_ms + NOT_OPEN_MS, not_before_ms=now_ms + NOT_OPEN_MS
            )
            return f"waits until {row.venue} is opened"
        intent = from_canonical(row.content)
        if not isinstance(intent, PositionIntent | LedgerIntent | PnlIntent):
            raise InvariantViolatedError(f"{key} is a {row.type}, not a book job")
        text = _book(context, connection, intent, now_ms)
        intents.move(connection, row, IntentState.DONE, now_ms=now_ms, reason=text, booked_at_ms=now_ms)
        work = followups.overdue(connection, now_ms=now_ms, limit=100)
    context.hand_over(parcels_of(work))
    return text


def _book(
    context: ExecutionContext, connection: Connection, intent: PositionIntent | LedgerIntent | PnlIntent, now_ms: int
) -> str:
    match intent:
        case PositionIntent():
            trade = _trade(intent.venue, intent.symbol, intent.trade)
            new = context.books.record_fills(connection, trades=[trade], key=None, now_ms=now_ms)
            return "booked" if new else "this trade was booked before"
        case LedgerIntent():
            ledger.post_entries(
                connection,
                key=intent.key,
                description=intent.description,
                entries=intent.entries,
                time_ms=now_ms,
                now_ms=now_ms,
            )
            return "posted"
        case PnlIntent():
            trade = _trade(intent.venue, intent.symbol, intent.trade)
            new_entries = pnl.post_trades(connection, [Fill(account=context.account, key=None, trade=trade)])
            return "booked" if new_entries else "this trade was booked before"
        case _:
            assert_never(intent)


def _trade(venue: str, symbol: str, trade: Trade) -> ExchangeTrade:
    return ExchangeTrade(
        venue=Venue(venue),
        symbol=symbol,
        trade_id=trade.id,
        order_id=trade.orderId,
        side=trade.side,
        price=trade.price,
        quantity=trade.qty,
        quote_quantity=EXACT.multiply(trade.price, trade.qty),
        commission=trade.commission,
        commission_asset=trade.commissionAsset,
        time_ms=trade.time,
        realized_pnl=trade.realizedPnl,
    )
