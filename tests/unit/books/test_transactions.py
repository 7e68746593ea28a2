"""The lines of one trade, and the assets of a symbol."""

from decimal import Decimal

import pytest

from app.books.assets import Assets, assets_of
from app.books.fills import Fill
from app.books.ledger import Line, Transaction, check_balanced, trade_transaction
from app.exchange.models import ExchangeTrade
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue

D = Decimal


def fill(venue: Venue, symbol: str, side: str, key: str | None = "k", **changes: object) -> Fill:
    fields = {
        "venue": venue,
        "symbol": symbol,
        "trade_id": 17,
        "order_id": 5,
        "side": side,
        "price": D("50000.10"),
        "quantity": D("0.010"),
        "quote_quantity": D("500.001"),
        "commission": D("0.2"),
        "commission_asset": "USDT",
        "time_ms": 0,
    }
    return Fill(account="main", key=key, trade=ExchangeTrade(**(fields | changes)))  # type: ignore[arg-type]


def lines(transaction: Transaction) -> list[tuple[str, str, str]]:
    return [(line.account, line.asset, format(line.amount, "f")) for line in transaction.lines]


def test_futures_trade_moves_the_contract_the_profit_and_the_fee():
    transaction = trade_transaction(
        fill(Venue.USDM, "BTCUSDT", "SELL", realized_pnl=D("1.5")), assets_of(Venue.USDM, "BTCUSDT")
    )
    check_balanced(transaction)
    assert transaction.id == "trade:usdm:BTCUSDT:17"
    assert transaction.description == "SELL 0.010 BTCUSDT at 50000.10, order 5"
    assert lines(transaction) == [
        ("position:usdm", "BTCUSDT.PERP", "-0.010"),
        ("market:usdm", "BTCUSDT.PERP", "0.010"),
        ("wallet:usdm", "USDT", "1.5"),
        ("realized_pnl:usdm", "USDT", "-1.5"),
        ("fees:usdm", "USDT", "0.2"),
        ("wallet:usdm", "USDT", "-0.2"),
    ]


def test_spot_trade_moves_base_quote_and_fee():
    transaction = trade_transaction(
        fill(Venue.SPOT, "BTCUSDT", "BUY", commission_asset="BNB"), assets_of(Venue.SPOT, "BTCUSDT")
    )
    check_balanced(transaction)
    assert lines(transaction) == [
        ("wallet:spot", "BTC", "0.010"),
        ("market:spot", "BTC", "-0.010"),
        ("market:spot", "USDT", "500.00100"),
        ("wallet:spot", "USDT", "-500.00100"),
        ("fees:spot", "BNB", "0.2"),
        ("wallet:spot", "BNB", "-0.2"),
    ]


def test_trade_that_is_not_ours_stands_against_external_in_every_line():
    transaction = trade_transaction(
        fill(Venue.USDM, "BTCUSDT", "BUY", key=None, realized_pnl=D("-3")), assets_of(Venue.USDM, "BTCUSDT")
    )
    check_balanced(transaction)
    assert {line.account for line in transaction.lines} == {"wallet:usdm", "position:usdm", "external"}
    assert transaction.description.endswith(", external")


@pytest.mark.parametrize("amounts", [[], ["1", "-0.9999999999999999999999999999999999999"], ["1"]])
def test_transaction_that_does_not_sum_to_zero_is_refused(amounts):
    unbalanced = Transaction(
        id="x",
        kind="entries",
        description="",
        key=None,
        time_ms=0,
        lines=tuple(Line(account="a", asset="USDT", amount=D(amount)) for amount in amounts),
    )
    with pytest.raises(InvariantViolatedError, match="transaction x does not sum to zero"):
        check_balanced(unbalanced)


def test_balance_in_one_asset_does_not_make_up_for_another():
    mixed = Transaction(
        id="x",
        kind="entries",
        description="",
        key=None,
        time_ms=0,
        lines=(Line(account="a", asset="USDT", amount=D(1)), Line(account="b", asset="USDC", amount=D(-1))),
    )
    with pytest.raises(InvariantViolatedError, match="-1 USDC, 1 USDT"):
        check_balanced(mixed)


@pytest.mark.parametrize(
    ("venue", "symbol", "base", "quote"),
    [
        (Venue.USDM, "BTCUSDT", "BTC", "USDT"),
        (Venue.USDM, "BTCUSDT_261225", "BTC", "USDT"),
        (Venue.USDM, "1000SHIBUSDC", "1000SHIB", "USDC"),
        (Venue.SPOT, "ETHBTC", "ETH", "BTC"),
        (Venue.SPOT, "BTCFDUSD", "BTC", "FDUSD"),
        (Venue.SPOT, "BTCTUSD", "BTC", "TUSD"),
        (Venue.SPOT, "USDCUSDT", "USDC", "USDT"),
    ],
)
def test_assets_of_a_symbol_by_its_longest_quote(venue, symbol, base, quote):
    assert assets_of(venue, symbol) == Assets(base=base, quote=quote)


@pytest.mark.parametrize("symbol", ["FOOBARX", "USDT", "BTCUSDT_"])
def test_symbol_with_an_unknown_quote_is_not_guessed(symbol):
    with pytest.raises(InvariantViolatedError, match="is not known"):
        assets_of(Venue.SPOT, symbol)
