"""What the paper exchange can be told at its start."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from app.exchange.paper.limits import profile
from app.exchange.paper.model import Venue


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOptions:
    """Options of one server. Rates are fractions (0.0005 is 0.05 %); a ``speed`` of 0 leaves the market still.

    ``deposits`` are booked when the data directory is new: (venue, asset, amount).
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = "paper"
    api_secret: str = "paper-secret"  # noqa: S105  an exchange of play money
    seed: int = 1
    speed: float = 0.0
    history: int = 120
    klines: Path | None = None
    klines_symbol: str = "BTCUSDT"
    prices: dict[str, Decimal] = field(default_factory=dict)
    limits: str = "wide"
    deposits: tuple[tuple[str, str, Decimal], ...] = (
        ("futures", "USDT", Decimal(100_000)),
        ("spot", "USDT", Decimal(100_000)),
    )
    engine_delay_ms: int = 0
    clock_offset_ms: int | None = None
    idle_timeout_s: float = 65.0
    fsync: bool = False
    level_notional: Decimal = Decimal(250_000)
    levels: int = 50
    gap_ticks: int = 1
    futures_maker_rate: Decimal = Decimal("0.0002")
    futures_taker_rate: Decimal = Decimal("0.0005")
    spot_maker_rate: Decimal = Decimal("0.001")
    spot_taker_rate: Decimal = Decimal("0.001")
    spot_fee_in_bnb: bool = False
    faults: Path | None = None


def _deposit(value: str) -> tuple[str, str, Decimal]:
    venue, asset, amount = value.split(":")
    if venue not in {"futures", "spot"}:
        raise argparse.ArgumentTypeError(f"venue must be futures or spot, not {venue!r}")
    return venue, asset, Decimal(amount)


def _limits(value: str) -> str:
    try:
        profile(value, Venue.FUTURES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def _price(value: str) -> tuple[str, Decimal]:
    symbol, _, price = value.partition("=")
    return symbol, Decimal(price)


def parse_options(arguments: list[str] | None = None) -> PaperOptions:
    """Options from a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m app.exchange.paper",
        description="A local exchange with Binance's USD-M futures and Spot shapes.",
    )
    defaults = PaperOptions(data=Path())
    add = parser.add_argument
    add("--data", type=Path, required=True, help="directory of the command log")
    add("--host", default=defaults.host)
    add("--port", type=int, default=0, help="0 picks a free one")
    add("--api-key", default=defaults.api_key)
    add("--api-secret", default=defaults.api_secret)
    add("--seed", type=int, default=defaults.seed, help="of the random walk")
    add("--speed", type=float, default=defaults.speed, help="candles per second; 0 leaves the market still")
    add("--history", type=int, default=defaults.history, help="candles before the start")
    add("--klines", type=Path, help="kline CSV file (plain or .gz) for --klines-symbol")
    add("--klines-symbol", default=defaults.klines_symbol)
    add("--price", type=_price, action="append", default=[], metavar="SYMBOL=PRICE", help="first price, repeatable")
    add(
        "--limits",
        type=_limits,
        default=defaults.limits,
        metavar="wide|binance|LIMIT=N,…",
        help="Binance's with some replaced, for example weight=300,orders_10s=15,orders_1m=60,ban_after=3",
    )
    add("--deposit", type=_deposit, action="append", metavar="VENUE:ASSET:AMOUNT", help="first deposits, repeatable")
    add("--engine-delay-ms", type=int, default=0, help="from gateway to matching engine")
    add("--clock-offset-ms", type=int, help="shift exchange time")
    add("--idle-timeout-s", type=float, default=defaults.idle_timeout_s, help="close idle connections after")
    add("--fsync", action="store_true", help="survive a power loss too")
    add("--level-notional", type=Decimal, default=defaults.level_notional, help="USDT per book level; 0 is bottomless")
    add("--levels", type=int, default=defaults.levels)
    add("--gap-ticks", type=int, default=defaults.gap_ticks)
    for name in ("futures-maker-rate", "futures-taker-rate", "spot-maker-rate", "spot-taker-rate"):
        add(f"--{name}", type=Decimal, default=getattr(defaults, name.replace("-", "_")))
    add("--spot-fee-in-bnb", action="store_true")
    add("--faults", type=Path, help="fault schedule, as POST /paper/faults takes it")
    found = vars(parser.parse_args(arguments))
    found["prices"] = dict(found.pop("price"))
    deposits = found.pop("deposit")
    return PaperOptions(**found, deposits=tuple(deposits) if deposits else defaults.deposits)
