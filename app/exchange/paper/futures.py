"""USD-M futures engine: one-way positions, one cross-margin wallet in USDT. Pure; driven by commands.

Rounding: everything is exact except ``entryPrice``, the weighted average of the opening trades, which is kept with
`ENTRY_PLACES` decimal places, half to even, after every opening trade. ``realizedPnl = (price - entryPrice) * closed
quantity`` and fees (``price * quantity * rate``) are not rounded at all, unlike Binance's, so that sums can be checked
to the last digit. Liquidation is not simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from app.exchange.paper.book import BookShape, Fill, cap_fills, last_price, level_quantity, plan_fills
from app.exchange.paper.commands import Configure, Deposit, Funding, PlaceOrder
from app.exchange.paper.errors import PaperError
from app.exchange.paper.market import Market
from app.exchange.paper.model import ZERO, LedgerEntry, Order, Status, Trade
from app.exchange.paper.orders import OrderStore
from app.exchange.paper.series import TimeSeries
from app.exchange.paper.symbols import SymbolSpec, futures_symbols

ENTRY_PLACES = Decimal("0.00000001")
DEFAULT_LEVERAGE = 20
ASSET = "USDT"


@dataclass(slots=True, kw_only=True)
class Position:
    """Net position of one symbol; ``open_buys``/``open_sells`` are notionals of resting orders that may open more."""

    amount: Decimal = ZERO
    entry: Decimal = ZERO
    leverage: int = DEFAULT_LEVERAGE
    update_ms: int = 0
    open_buys: Decimal = ZERO
    open_sells: Decimal = ZERO

    @property
    def is_idle(self) -> bool:
        """Whether it needs no margin."""
        return not (self.amount or self.open_buys or self.open_sells)

    def margin(self, mark: Decimal, extra_buys: Decimal = ZERO, extra_sells: Decimal = ZERO) -> Decimal:
        """Initial margin of the worse of both directions, if all (and the extra) orders on one side filled."""
        notional = self.amount * mark
        worst = max(notional + self.open_buys + extra_buys, self.open_sells + extra_sells - notional, ZERO)
        return worst / self.leverage


class FuturesEngine:
    """The futures half of the matching engine."""

    def __init__(self, market: Market) -> None:
        self.specs: dict[str, SymbolSpec] = futures_symbols()
        self.stores: dict[str, OrderStore] = {symbol: OrderStore() for symbol in self.specs}
        self.positions: dict[str, Position] = {symbol: Position() for symbol in self.specs}
        self.ledger: TimeSeries[LedgerEntry] = TimeSeries()
        self.wallet = ZERO
        self.deposits = ZERO
        self.max_open_orders = 200
        self.maker_rate = Decimal("0.0002")
        self.taker_rate = Decimal("0.0005")
        self.shape = BookShape()
        self._market = market
        self._last = {symbol: last_price(spec, market.prices[symbol]) for symbol, spec in self.specs.items()}

    def configure(self, command: Configure, shape: BookShape) -> None:
        """Take over fees, depth and limits."""
        self.maker_rate = command.futures_maker_rate
        self.taker_rate = command.futures_taker_rate
        self.max_open_orders = command.max_open_orders
        self.shape = shape

    def last(self, symbol: str) -> Decimal:
        """Last (and mark) price on the venue's tick grid."""
        return self._last[symbol]

    # ---- account ----------------------------------------------------------------------------------------------

    def unrealized(self, symbol: str) -> Decimal:
        """Unrealized profit of one position at the mark price, exact."""
        position = self.positions[symbol]
        return (self.last(symbol) - position.entry) * position.amount if position.amount else ZERO

    def unrealized_total(self) -> Decimal:
        """Unrealized profit of all positions."""
        return sum((self.unrealized(symbol) for symbol in self.positions), ZERO)

    def margin_total(self) -> Decimal:
        """Initial margin of all positions and resting orders."""
        return sum((one.margin(self._last[symbol]) for symbol, one in self.positions.items() if not one.is_idle), ZERO)

    def deposit(self, command: Deposit) -> None:
        """Move money into or out of the wallet.

        Raises:
            PaperError: Another asset than USDT, or a withdrawal of more than there is.
        """
        if command.asset != ASSET:
            raise PaperError(-1130, "Only USDT is kept in the futures wallet here.")
        if self.wallet + command.amount < ZERO:
            raise PaperError(-2018, "Balance is insufficient.")
        self.deposits += command.amount
        self._post("TRANSFER", command.amount, command.at)

    def fund(self, command: Funding) -> None:
        """Settle funding of one symbol at the mark price."""
        position = self.positions[command.symbol]
        if position.amount:
            cost = position.amount * self.last(command.symbol) * command.rate
            self._post("FUNDING_FEE", -cost, command.at, symbol=command.symbol)

    def _post(self, kind: str, amount: Decimal, at: int, *, symbol: str = "", trade_id: int = 0) -> None:
        self.wallet += amount
        self.ledger.append(
            LedgerEntry(
                tran_id=9_000_000_001 + len(self.ledger.items),
                kind=kind,
                asset=ASSET,
                amount=amount,
                balance_after=self.wallet,
                time_ms=at,
                symbol=symbol,
                trade_id=trade_id,
                info=str(trade_id) if trade_id else kind,
            )
        )

    # ---- orders -----------------------------------------------------------------------------------------------

    def place(self, command: PlaceOrder) -> Order:
        """Take an order, match it and let the rest of it rest or expire.

        Raises:
            PaperError: The engine refuses it; nothing is recorded (-4116, -2022, -2019, -2025, -4131, -5021, -5022).
        """
        spec = self.specs[command.symbol]
        store = self.stores[command.symbol]
        if command.client_order_id in store.open_by_client_id:
            raise PaperError(-4116, "ClientOrderId is duplicated.")
        if len(store.open) >= self.max_open_orders:
            raise PaperError(-2025, "Reach max open order limit.")
        if command.quantity is None:
            raise PaperError(-4003, "Quantity less than or equal to zero.")
        wanted = command.quantity
        if command.reduce_only:
            wanted = min(wanted, self._reducible(command.symbol, command.side))
            if wanted <= ZERO:
                raise PaperError(-2022, "ReduceOnly Order is rejected.")
        last = self.last(command.symbol)
        limit = command.price if command.type == "LIMIT" else None
        fills = plan_fills(spec, last, command.side, self.shape, quantity=wanted, limit_price=limit)
        if command.liquidity is not None:
            fills = cap_fills(fills, command.liquidity)
        self._check_executable(command, spec, fills, wanted, last)
        if not command.reduce_only:
            self._check_margin(command, fills, last)
        order = Order(
            order_id=store.next_order_id,
            client_order_id=command.client_order_id,
            placed_client_order_id=command.client_order_id,
            symbol=command.symbol,
            side=command.side,
            type=command.type,
            orig_type=command.orig_type or command.type,
            time_in_force=command.time_in_force,
            price=command.price if limit is not None and command.price is not None else ZERO,
            quantity=command.quantity,
            reduce_only=command.reduce_only,
            algo_id=command.algo_id,
            time_ms=command.at,
            update_ms=command.at,
        )
        store.add(order)
        for fill in fills:
            self._fill(order, fill, command.at, is_maker=False)
        self._settle_remainder(order, wanted, command)
        return order

    def _check_executable(
        self, command: PlaceOrder, spec: SymbolSpec, fills: list[Fill], wanted: Decimal, last: Decimal
    ) -> None:
        if command.time_in_force == "GTX" and fills:
            raise PaperError(
                -5022,
                "Due to the order could not be executed as maker, the Post Only order will be rejected. "
                "The order will not be recorded in the order history",
            )
        if command.time_in_force == "FOK" and sum((fill.quantity for fill in fills), ZERO) < wanted:
            raise PaperError(
                -5021,
                "Due to the order could not be filled immediately, the FOK order has been rejected. "
                "The order will not be recorded in the order history",
            )
        if command.type == "MARKET" and fills:
            worst = fills[-1].price
            if not last * spec.multiplier_down <= worst <= last * spec.multiplier_up:
                raise PaperError(-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit.")

    def _check_margin(self, command: PlaceOrder, fills: list[Fill], last: Decimal) -> None:
        price = command.price if command.type == "LIMIT" and command.price is not None else last
        notional = sum((fill.price * fill.quantity for fill in fills), ZERO)
        unfilled = (command.quantity or ZERO) - sum((fill.quantity for fill in fills), ZERO)
        if command.type == "LIMIT" and command.time_in_force in {"GTC", "GTX"}:
            notional += unfilled * price
        position = self.positions[command.symbol]
        before = position.margin(last)
        after = (
            position.margin(last, extra_buys=notional)
            if command.side == "BUY"
            else position.margin(last, extra_sells=notional)
        )
        if after > before and self.margin_total() - before + after > self.wallet + self.unrealized_total():
            raise PaperError(-2019, "Margin is insufficient.")

    def _settle_remainder(self, order: Order, wanted: Decimal, command: PlaceOrder) -> None:
        store = self.stores[order.symbol]
        if not order.is_open:
            return
        rests = order.type == "LIMIT" and order.time_in_force in {"GTC", "GTX"}
        if not rests or (order.reduce_only and order.executed >= wanted):
            store.close(order, Status.EXPIRED, command.at)
            return
        store.rest(order)
        self._reserve(order, order.remaining)

    def _reserve(self, order: Order, quantity: Decimal) -> None:
        """Count a resting order's notional (negative quantity: no longer) toward margin."""
        if order.reduce_only:
            return
        position = self.positions[order.symbol]
        if order.side == "BUY":
            position.open_buys += quantity * order.price
        else:
            position.open_sells += quantity * order.price

    def cancel(self, symbol: str, order_id: int, at: int) -> Order:
        """Cancel an open order.

        Raises:
            PaperError: -2011, it is not open.
        """
        store = self.stores[symbol]
        order = store.open.get(order_id)
        if order is None:
            raise PaperError(-2011, "Unknown order sent.")
        self._reserve(order, -order.remaining)
        store.close(order, Status.CANCELED, at)
        return order

    def on_price(self, symbol: str, at: int) -> None:
        """Fill resting orders that the new price reaches: at their own price, one level's depth at a time."""
        store = self.stores[symbol]
        spec = self.specs[symbol]
        last = self._last[symbol] = last_price(spec, self._market.prices[symbol])
        for order in store.crossed(last):
            if not order.is_open:
                continue
            quantity = order.remaining
            if order.reduce_only:
                quantity = min(quantity, self._reducible(symbol, order.side))
            available = level_quantity(spec, order.price, self.shape)
            if available is not None:
                quantity = min(quantity, available)
            if quantity > ZERO:
                self._reserve(order, -quantity)
                self._fill(order, Fill(price=order.price, quantity=quantity), at, is_maker=True)
            if order.is_open and order.reduce_only and self._reducible(symbol, order.side) <= ZERO:
                store.close(order, Status.EXPIRED, at)
            elif order.is_open:
                store.rest(order)

    def _reducible(self, symbol: str, side: str) -> Decimal:
        amount = self.positions[symbol].amount
        return max(-amount if side == "BUY" else amount, ZERO)

    def _fill(self, order: Order, fill: Fill, at: int, *, is_maker: bool) -> None:
        store = self.stores[order.symbol]
        position = self.positions[order.symbol]
        realized = _apply(position, order.side, fill)
        position.update_ms = at
        notional = fill.price * fill.quantity
        fee = notional * (self.maker_rate if is_maker else self.taker_rate)
        trade = Trade(
            trade_id=store.next_trade_id,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            price=fill.price,
            quantity=fill.quantity,
            fee=fee,
            fee_asset=ASSET,
            is_maker=is_maker,
            time_ms=at,
            realized_pnl=realized,
            position_after=position.amount,
            entry_after=position.entry,
        )
        store.trades.append(trade)
        order.trades.append(trade)
        order.executed += fill.quantity
        order.executed_quote += notional
        order.update_ms = at
        if realized:
            self._post("REALIZED_PNL", realized, at, symbol=order.symbol, trade_id=trade.trade_id)
        if fee:
            self._post("COMMISSION", -fee, at, symbol=order.symbol, trade_id=trade.trade_id)
        if order.executed == order.quantity:
            store.close(order, Status.FILLED, at)
        else:
            order.status = Status.PARTIALLY_FILLED
        for other in list(store.open_reduce_only.values()):
            if other is not order and self._reducible(order.symbol, other.side) <= ZERO:
                store.close(other, Status.EXPIRED, at)


def _apply(position: Position, side: str, fill: Fill) -> Decimal:
    """Move the position by one fill; returns the realized profit, exact."""
    signed = fill.quantity if side == "BUY" else -fill.quantity
    old = position.amount
    realized = ZERO
    if old * signed >= ZERO:
        total = abs(old) + fill.quantity
        cost = abs(old) * position.entry + fill.quantity * fill.price
        position.entry = (cost / total).quantize(ENTRY_PLACES, rounding=ROUND_HALF_EVEN)
    else:
        closed = min(abs(old), fill.quantity)
        realized = (fill.price - position.entry) * (closed if old > ZERO else -closed)
        if fill.quantity > abs(old):
            position.entry = fill.price
        elif fill.quantity == abs(old):
            position.entry = ZERO
    position.amount = old + signed
    return realized
