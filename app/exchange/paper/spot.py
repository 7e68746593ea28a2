"""Spot engine: balances free and locked, orders, trades. Pure; driven by commands.

Fees are exact and taken from the received asset, or from BNB (25 % off, 8 decimal places, half to even) if that is
switched on and there is enough of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from app.exchange.paper.book import BookShape, Fill, cap_fills, last_price, level_quantity, plan_fills
from app.exchange.paper.commands import Configure, Deposit, PlaceOrder
from app.exchange.paper.errors import PaperError, filter_failure, insufficient_balance
from app.exchange.paper.market import Market
from app.exchange.paper.model import ZERO, LedgerEntry, Order, Status, Trade
from app.exchange.paper.orders import OrderStore
from app.exchange.paper.series import TimeSeries
from app.exchange.paper.symbols import SymbolSpec, spot_symbols

_BNB_PLACES = Decimal("0.00000001")
_BNB_SHARE = Decimal("0.75")
RESTING = frozenset({"GTC"})


@dataclass(slots=True, kw_only=True)
class Balance:
    """What the account holds of one asset."""

    free: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """Free and locked together."""
        return self.free + self.locked


class SpotEngine:
    """The Spot half of the matching engine."""

    def __init__(self, market: Market) -> None:
        self.specs: dict[str, SymbolSpec] = spot_symbols()
        self.stores: dict[str, OrderStore] = {symbol: OrderStore() for symbol in self.specs}
        self.balances: dict[str, Balance] = {}
        self.deposits: dict[str, Decimal] = {}
        self.ledgers: dict[str, TimeSeries[LedgerEntry]] = {}
        self.max_open_orders = 200
        self.maker_rate = Decimal("0.001")
        self.taker_rate = Decimal("0.001")
        self.fee_in_bnb = False
        self.shape = BookShape()
        self._market = market
        self._last = {symbol: last_price(spec, market.prices[symbol]) for symbol, spec in self.specs.items()}
        self._tran_id = 8_000_000_001

    def configure(self, command: Configure, shape: BookShape) -> None:
        """Take over fees, depth and limits."""
        self.maker_rate = command.spot_maker_rate
        self.taker_rate = command.spot_taker_rate
        self.fee_in_bnb = command.spot_fee_in_bnb
        self.max_open_orders = command.max_open_orders
        self.shape = shape

    def last(self, symbol: str) -> Decimal:
        """Last price on the venue's tick grid."""
        return self._last[symbol]

    def balance(self, asset: str) -> Balance:
        """The balance of an asset, made on first use."""
        found = self.balances.get(asset)
        if found is None:
            found = self.balances[asset] = Balance()
            self.ledgers[asset] = TimeSeries()
        return found

    def deposit(self, command: Deposit) -> None:
        """Move an asset into or out of the account.

        Raises:
            PaperError: A withdrawal of more than is free.
        """
        balance = self.balance(command.asset)
        if balance.free + command.amount < ZERO:
            raise insufficient_balance()
        self.deposits[command.asset] = self.deposits.get(command.asset, ZERO) + command.amount
        self._book("TRANSFER", command.asset, command.amount, command.at)

    def _book(  # noqa: PLR0917  called in one form only
        self, kind: str, asset: str, amount: Decimal, at: int, symbol: str = "", trade_id: int = 0
    ) -> None:
        if not amount:
            return
        balance = self.balance(asset)
        balance.free += amount
        self.ledgers[asset].append(
            LedgerEntry(
                tran_id=self._tran_id,
                kind=kind,
                asset=asset,
                amount=amount,
                balance_after=balance.total,
                time_ms=at,
                symbol=symbol,
                trade_id=trade_id,
            )
        )
        self._tran_id += 1

    # ---- orders -----------------------------------------------------------------------------------------------

    def place(self, command: PlaceOrder) -> Order:
        """Take an order, match it and let the rest of it rest or expire.

        Raises:
            PaperError: The engine refuses it; nothing is recorded (-2010, -1013).
        """
        spec = self.specs[command.symbol]
        store = self.stores[command.symbol]
        if command.client_order_id in store.open_by_client_id:
            raise PaperError(-2010, "Duplicate order sent.")
        if len(store.open) >= self.max_open_orders:
            raise filter_failure("MAX_NUM_ORDERS")
        limit = command.price if command.type != "MARKET" else None
        fills = plan_fills(
            spec,
            self.last(command.symbol),
            command.side,
            self.shape,
            quantity=command.quantity,
            quote_quantity=command.quote_quantity,
            limit_price=limit,
        )
        if command.liquidity is not None:
            fills = cap_fills(fills, command.liquidity)
        if command.type == "LIMIT_MAKER" and fills:
            raise PaperError(-2010, "Order would immediately match and take.")
        traded = sum((fill.quantity for fill in fills), ZERO)
        quantity = command.quantity if command.quantity is not None else traded
        if quantity <= ZERO:
            raise filter_failure("LOT_SIZE")
        if command.time_in_force == "FOK" and traded < quantity:
            fills = []
        rests = command.type == "LIMIT_MAKER" or (command.type == "LIMIT" and command.time_in_force in RESTING)
        self._check_balance(command, spec, fills, quantity, rests=rests)
        order = Order(
            order_id=store.next_order_id,
            client_order_id=command.client_order_id,
            placed_client_order_id=command.client_order_id,
            symbol=command.symbol,
            side=command.side,
            type=command.type,
            orig_type=command.type,
            time_in_force=command.time_in_force,
            price=limit if limit is not None else ZERO,
            quantity=quantity,
            quote_quantity=command.quote_quantity or ZERO,
            time_ms=command.at,
            update_ms=command.at,
        )
        store.add(order)
        for fill in fills:
            self._fill(order, fill, command.at, is_maker=False)
        if order.is_open and rests:
            store.rest(order)
            self._lock(order, order.remaining)
        elif order.is_open:
            store.close(order, Status.EXPIRED, command.at)
        return order

    def _check_balance(
        self, command: PlaceOrder, spec: SymbolSpec, fills: list[Fill], quantity: Decimal, *, rests: bool
    ) -> None:
        if command.side == "SELL":
            if self.balance(spec.base).free < quantity:
                raise insufficient_balance()
            return
        cost = sum((fill.price * fill.quantity for fill in fills), ZERO)
        if rests and command.price is not None:
            cost += (quantity - sum((fill.quantity for fill in fills), ZERO)) * command.price
        elif command.price is not None:
            cost = max(cost, quantity * command.price)
        if self.balance(spec.quote).free < cost:
            raise insufficient_balance()

    def _lock(self, order: Order, quantity: Decimal) -> None:
        """Set aside what ``quantity`` of the order will spend (negative: give it back)."""
        spec = self.specs[order.symbol]
        amount = quantity * order.price if order.side == "BUY" else quantity
        balance = self.balance(spec.quote if order.side == "BUY" else spec.base)
        balance.free -= amount
        balance.locked += amount
        order.locked += amount

    def cancel(self, symbol: str, order_id: int, at: int, new_client_order_id: str) -> Order:
        """Cancel an open order; it answers to ``new_client_order_id`` from now on, as on Binance Spot.

        Raises:
            PaperError: -2011, it is not open.
        """
        store = self.stores[symbol]
        order = store.open.get(order_id)
        if order is None:
            raise PaperError(-2011, "Unknown order sent.")
        self._lock(order, -order.remaining)
        store.close(order, Status.CANCELED, at)
        store.rename(order, new_client_order_id)
        return order

    def on_price(self, symbol: str, at: int) -> int:
        """Fill resting orders that the new price reaches; returns how many orders traded."""
        store = self.stores[symbol]
        spec = self.specs[symbol]
        last = self._last[symbol] = last_price(spec, self._market.prices[symbol])
        reached = store.crossed(last)
        for order in reached:
            available = level_quantity(spec, order.price, self.shape)
            quantity = order.remaining if available is None else min(order.remaining, available)
            self._lock(order, -quantity)
            self._fill(order, Fill(price=order.price, quantity=quantity), at, is_maker=True)
            if order.is_open:
                store.rest(order)
        return len(reached)

    def _fill(self, order: Order, fill: Fill, at: int, *, is_maker: bool) -> None:
        spec = self.specs[order.symbol]
        store = self.stores[order.symbol]
        quote = fill.price * fill.quantity
        spent, received = (spec.quote, spec.base) if order.side == "BUY" else (spec.base, spec.quote)
        paid, got = (quote, fill.quantity) if order.side == "BUY" else (fill.quantity, quote)
        rate = self.maker_rate if is_maker else self.taker_rate
        trade_id = store.next_trade_id
        for asset, amount in ((spent, -paid), (received, got)):
            self._book("TRADE", asset, amount, at, order.symbol, trade_id)
        fee, fee_asset = self._fee(got * rate, quote * rate, received)
        self._book("COMMISSION", fee_asset, -fee, at, order.symbol, trade_id)
        trade = Trade(
            trade_id=trade_id,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            price=fill.price,
            quantity=fill.quantity,
            fee=fee,
            fee_asset=fee_asset,
            is_maker=is_maker,
            time_ms=at,
        )
        store.trades.append(trade)
        order.trades.append(trade)
        order.executed += fill.quantity
        order.executed_quote += quote
        order.update_ms = at
        if order.executed == order.quantity:
            store.close(order, Status.FILLED, at)
        else:
            order.status = Status.PARTIALLY_FILLED

    def _fee(self, in_received: Decimal, in_quote: Decimal, received: str) -> tuple[Decimal, str]:
        if self.fee_in_bnb:
            price = self._market.prices["BNBUSDT"]
            fee = (in_quote * _BNB_SHARE / price).quantize(_BNB_PLACES, rounding=ROUND_HALF_EVEN)
            if self.balance("BNB").free >= fee:
                return fee, "BNB"
        return in_received, received
