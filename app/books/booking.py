"""Trades into fills and positions, with the follow-ups for ledger and PnL, in the caller's one transaction.

A trade is unique by (account, venue, symbol, trade id) in the database itself. The position of a symbol always is what
its trades make of it in the order of their ids, in whatever order they were told.

`account` is the label of this installation's exchange account also for trades that are not ours: the exchange nets both
into one position. What is not ours has no intent (`key` None), and the ledger posts it against the account `external`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from app.books import fills, replay
from app.books.assets import Assets, AssetsOf, assets_of
from app.books.fills import SymbolKey, here
from app.books.outbox import add_all
from app.books.sql import insert_new, lock_intents
from app.exchange.models import ExchangeTrade
from app.job_safety.errors import InvariantViolatedError, WrongInstallationError
from app.job_safety.keys import digest
from app.journal import schema
from app.journal.followups import Followup

POST_LEDGER: Final = "post_ledger"
POST_PNL: Final = "post_pnl"
QUEUE_OF: Final = {POST_LEDGER: "ledger", POST_PNL: "pnl"}

_OWNER_AND_WATERMARK: Final = select(
    select(schema.journal_meta.c.account).where(schema.journal_meta.c.id == 1).scalar_subquery(),
    select(schema.watermarks.c.trade_id)
    .where(schema.watermarks.c.venue == bindparam("venue"), schema.watermarks.c.symbol == bindparam("symbol"))
    .scalar_subquery(),
)


def record_fills(
    connection: Connection,
    *,
    account: str,
    trades: Sequence[ExchangeTrade],
    key: str | None,
    now_ms: int,
    assets: AssetsOf = assets_of,
) -> list[ExchangeTrade]:
    """Book `trades` into fills and positions once, however often and from however many sides they are told.

    Trades at or below the watermark of their symbol belong to the opening entries; if they have a `key` they are kept
    as fills, so that their order can be finished, and are booked nowhere again. A trade that was external and turns out
    to be ours gets its `key`, and a follow-up that moves its postings from `external`.

    Safe when called concurrently: the row of the intent and then that of the position are held until the transaction
    ends. One call takes the positions of several symbols in sorted order.

    Args:
        connection: a write transaction.
        account: label of the exchange account of this journal.
        trades: of any venues and symbols, in any order.
        key: the intent that caused them; None if they are not ours.
        now_ms: for the record only.
        assets: tells base and quote of a symbol; from exchangeInfo where that is at hand.

    Returns:
        The trades that this call has booked, by venue, symbol and id.

    Raises:
        WrongInstallationError: the journal belongs to another account.
        InvariantViolatedError: a known trade id with another content, or of another intent.
    """
    booked: list[ExchangeTrade] = []
    if key is not None and trades:
        lock_intents(connection, [key])
    in_order = sorted(trades, key=lambda trade: (trade.venue, trade.symbol, trade.trade_id))
    for (venue, symbol), group in groupby(in_order, key=lambda trade: (trade.venue, trade.symbol)):
        booking = _Booking(
            connection=connection,
            at=SymbolKey(account=account, venue=str(venue), symbol=symbol),
            key=key,
            assets=assets(venue, symbol),
            now_ms=now_ms,
        )
        booked += booking.record(list(group))
    return booked


def record_owned(
    connection: Connection,
    *,
    account: str,
    owned: Mapping[str, Sequence[ExchangeTrade]],
    now_ms: int,
    assets: AssetsOf = assets_of,
) -> dict[str, list[ExchangeTrade]]:
    """Book trades of one symbol, of several intents of ours, in one transaction; return for each what is booked now.

    As `record_fills`, which see. All intents are held before the position is, so that two such calls, or one beside
    that of a worker, never wait in a circle.

    Raises:
        ValueError: trades of several symbols, whose positions would be held in no order.
        WrongInstallationError, InvariantViolatedError: as `record_fills`.
    """
    if len({(trade.venue, trade.symbol) for trades in owned.values() for trade in trades}) > 1:
        raise ValueError("trades: of several symbols; book one symbol at a time")
    lock_intents(connection, owned)
    return {
        key: record_fills(connection, account=account, trades=trades, key=key, now_ms=now_ms, assets=assets)
        for key, trades in sorted(owned.items())
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Booking:
    """One symbol's part of a call of `record_fills`."""

    connection: Connection
    at: SymbolKey
    key: str | None
    assets: Assets
    now_ms: int

    def record(self, told: list[ExchangeTrade]) -> list[ExchangeTrade]:
        mark = self._watermark()
        wanted = [trade for trade in told if trade.trade_id > mark or self.key is not None]
        if not wanted:
            return []
        held = replay.hold(self.connection, self.at, now_ms=self.now_ms)
        distinct = {trade.trade_id: trade for trade in wanted}
        rows = [
            fills.row_of(trade, account=self.at.account, key=self.key, now_ms=self.now_ms)
            for _, trade in sorted(distinct.items())
        ]
        inserted = insert_new(self.connection, schema.fills, rows, schema.fills.c.trade_id)
        if len(inserted) < len(wanted):
            self._meet_again(wanted)
        new = [distinct[trade_id] for (trade_id,) in sorted(inserted) if trade_id > mark]
        if new:
            replay.move(self.connection, self.at, held, new, base=self.assets.base, now_ms=self.now_ms)
            trade_ids = [trade.trade_id for trade in new]
            both = [self._followup(POST_LEDGER, trade_ids), self._followup(POST_PNL, trade_ids)]
            add_all(self.connection, both, now_ms=self.now_ms)
        return new

    def _watermark(self) -> int:
        """Return the highest trade id that belongs to the opening; in the same statement, see whose books these are."""
        place = {"venue": self.at.venue, "symbol": self.at.symbol}
        label, trade_id = self.connection.execute(_OWNER_AND_WATERMARK, place).one()
        if label is not None and label != self.at.account:
            raise WrongInstallationError(f"this journal keeps the books of account {label}, not of {self.at.account}")
        return replay.NO_TRADE if trade_id is None else int(trade_id)

    def _meet_again(self, told: list[ExchangeTrade]) -> None:
        """Compare what is told again with what is kept, and adopt what was external and is ours."""
        found = fills.load(self.connection, {self.at: [trade.trade_id for trade in told]})
        kept = {fill.trade.trade_id: fill for fill in found}
        for trade in told:
            fill = kept[trade.trade_id]
            fills.check_same(fill, trade)
            if self.key is not None and fill.key not in {None, self.key}:
                raise InvariantViolatedError(
                    f"trade {trade.venue}:{trade.symbol}:{trade.trade_id} belongs to another intent"
                )
        orphans = [trade_id for trade_id, fill in sorted(kept.items()) if fill.is_external]
        if self.key is None or not orphans:
            return
        c = schema.fills.c
        mine = update(schema.fills).where(here(c, self.at), c.trade_id.in_(orphans)).values(key=self.key)
        self.connection.execute(mine)
        add_all(self.connection, [self._followup(POST_LEDGER, orphans)], now_ms=self.now_ms)

    def _followup(self, kind: str, trade_ids: list[int]) -> Followup:
        # The digest covers the whole set: two sets with the same ends (2-9 with and without 5) are two follow-ups.
        name = digest("followup", self.at.account, self.key or "", *map(str, trade_ids))
        return Followup(
            key=f"{kind}:{self.at.venue}:{self.at.symbol}:{trade_ids[0]}-{trade_ids[-1]}:{name}",
            kind=kind,
            queue=QUEUE_OF[kind],
            intent_key=self.key,
            payload={
                "account": self.at.account,
                "venue": self.at.venue,
                "symbol": self.at.symbol,
                "base": self.assets.base,
                "quote": self.assets.quote,
                "trade_ids": trade_ids,
            },
            run_at_ms=self.now_ms,
        )
