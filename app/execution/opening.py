"""The first look at an account: what it holds becomes opening entries, before the first order of ours goes out.

The opening says "at this moment the account held just this". Whatever came before is in it, whatever comes after is
booked. No single answer can say so, because each shows the account as it was at some moment of the last
`opening_read_lag_ms`, nobody knows which. So the account is read twice, and has to have held still for a while:

    |------ lag ------| first reading |------ lag ------| second reading, histories |
    ^ from here on the histories ...  ^ ... show no movement until here

- The histories are asked for a whole lag after the first reading, so they show everything up to its end. If nothing
  moved from a lag before it, then whichever moment its balances and its positions are from, it was the same account.
  What moved after its end comes after the opening, and is booked like everything else.
- What no history tells of (deposits on Spot, trades on symbols that are not ours) is told by the second reading: it is
  from after the first one's end, while the first one's is from before. They are equal, so nothing moved between. On
  futures the income history tells of everything, so that they may differ once it shows that something moved later.

The end of the first reading is the moment that is opened at. See ADR 0010.
"""

from collections.abc import Mapping
from typing import Final

from app.execution.account_reading import AccountReading, read_account, read_movements
from app.execution.context import ExecutionContext
from app.job_safety.errors import RetryableError
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.kill_switch import KillSource, KillState
from app.job_safety.outcome import Venue
from app.journal import kill_latches, restore
from app.journal.kill_latches import Change

MAX_LOOKS: Final = 3
"""How often one call looks again at an account that moves."""
WATCH_LAGS: Final = 20
"""An account that does not hold still for so many lags is opened all the same, with an alarm: nothing is sent before,
exits included, and `ledger check` shows what the books are off by."""
SLEEP_AT_MOST_MS: Final = 1_000
"""A shorter wait is slept; for a longer one the caller is sent away, so that nobody is held up."""
HISTORY_MS: Final = 7 * 24 * 3600 * 1000
"""How far back orders with our prefix are looked for when the journal has no history."""


class AccountMovesError(RetryableError):
    """The account has not been seen to hold still for long enough yet; worth another look in `for_ms` milliseconds."""

    def __init__(self, venue: Venue, still_ms: int, for_ms: int) -> None:
        super().__init__(venue, still_ms, for_ms)
        self.venue = venue
        self.still_ms = still_ms
        self.for_ms = for_ms

    def __str__(self) -> str:
        return (
            f"{self.venue}: its books are opened once the account has held still for {self.still_ms} ms; "
            f"looking again in {self.for_ms} ms"
        )


def ensure_open(context: ExecutionContext, venue: Venue) -> bool:
    """Book the opening entries of `venue` unless they are; return whether this call did.

    Takes at least two calls, or one that sleeps a little: what the first saw is kept in `context.first_looks`. It may
    be lost with its process, which costs a new wait; several processes may watch at once, and one of them books.

    A journal without history on an account that has orders of ours has been lost: it starts in HALT, in a new epoch,
    and every intent is looked up at the exchange before its first order. Otherwise the same intents would buy again.

    Raises:
        ExchangeQueryError: the account could not be read; nothing may be sent.
        AccountMovesError: it has not held still for long enough yet; says for how long to wait.
    """
    if _is_open(context, venue):
        return False
    lag_ms = context.horizons.opening_read_lag_ms
    for _ in range(MAX_LOOKS):
        first = _first_look(context, venue)
        _wait(context, first, lag_ms)
        second = read_account(context.gateway, venue)
        # Asked last: what the second reading may contain without the first one is seen here, or differs.
        symbols = context.symbols.get(venue, ())
        moved = read_movements(
            context.gateway, venue, symbols, since_ms=first.from_ms - lag_ms, until_ms=first.until_ms
        )
        is_explained = second.holds_the_same_as(first) or (venue is Venue.USDM and moved.are_later)
        is_still = is_explained and not moved.are_inside
        if is_still or _is_tired(context, first, lag_ms):
            return _book(context, first, moved.last_trade_ids, seen_at_ms=second.until_ms, is_sure=is_still)
        if _is_open(context, venue):
            return False  # what moved may be the first order of ours, sent by another process
        context.first_looks[venue] = second
        context.record.event("account_moves", level="warning", venue=venue.value, since_ms=first.from_ms)
    raise AccountMovesError(venue, 2 * lag_ms, for_ms=lag_ms)


def _is_tired(context: ExecutionContext, first: AccountReading, lag_ms: int) -> bool:
    """Whether the account has been watched for so long that its exits must not wait any longer."""
    since_ms = context.watched_since_ms.setdefault(first.venue, first.from_ms)
    return first.until_ms - since_ms >= WATCH_LAGS * lag_ms


def _is_open(context: ExecutionContext, venue: Venue) -> bool:
    with context.journal.read() as connection:
        return context.books.is_open(connection, venue)


def _first_look(context: ExecutionContext, venue: Venue) -> AccountReading:
    known = context.first_looks.get(venue)
    if known is None:
        known = context.first_looks[venue] = read_account(context.gateway, venue)
    return known


def _wait(context: ExecutionContext, first: AccountReading, lag_ms: int) -> None:
    """Return when the exchange's clock is past the first look by the lag: ours may be wrong, and plays no part."""
    left_ms = _left_ms(context, first, lag_ms)
    if 0 < left_ms <= SLEEP_AT_MOST_MS:
        context.clock.sleep(left_ms / 1000)
        left_ms = _left_ms(context, first, lag_ms)
    if left_ms > 0:
        raise AccountMovesError(first.venue, 2 * lag_ms, for_ms=left_ms)


def _left_ms(context: ExecutionContext, first: AccountReading, lag_ms: int) -> int:
    now_ms = context.gateway.server_time(first.venue).server_time_ms
    if now_ms < first.until_ms:
        # Its clock was set back: what is stamped from now on may look older than what we saw.
        context.first_looks.pop(first.venue)
        raise AccountMovesError(first.venue, 2 * lag_ms, for_ms=1)
    return first.until_ms + lag_ms + 1 - now_ms


def _book(
    context: ExecutionContext,
    reading: AccountReading,
    last_trade_ids: Mapping[str, int],
    *,
    seen_at_ms: int,
    is_sure: bool,
) -> bool:
    venue = reading.venue
    has_our_orders = _has_orders_of_ours(context, venue)
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        is_new = context.books.book_opening(
            connection,
            venue=venue,
            balances=reading.balances,
            positions=reading.positions,
            watermarks=last_trade_ids,
            now_ms=reading.until_ms,
        )
        if not is_new:
            return False  # another process was faster
        if has_our_orders and restore.has_no_history(connection, venue=venue.value):
            restore.new_epoch(connection, now_ms=max(now_ms, seen_at_ms))
            halt = Change(
                source=KillSource.SYSTEM,
                state=KillState.HALT,
                actor=context.owner,
                reason=f"this journal is new, and {venue.value} has orders of ours: reconcile first",
                config_hash=context.config_hash,
            )
            kill_latches.change(connection, halt, now_ms=now_ms)
    context.first_looks.pop(venue, None)
    context.record.event("venue_opened", venue=venue.value, lost_history=has_our_orders)
    if not is_sure:
        context.record.alarm("opened_restless", venue=venue.value, remedy="run `fillonce ledger check`")
    return True


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
