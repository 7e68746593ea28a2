"""Whatever the read side shows, an opening is the account as it was at one moment. Searched over random histories.

Every answer is as old as chance wants, each by its own amount, up to the lag that opening allows for. The account is a
model; that the real answers are read like this is shown in tests/integration/test_opening.py.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exchange.models import Balance, ExchangePosition, ExchangeTrade, Income, ServerTime
from app.execution.context import ExecutionContext, Horizons
from app.execution.opening import AccountMovesError, ensure_open
from app.job_safety.outcome import Venue
from app.journal.engine import Journal
from tests.safety.simulation.world import open_fast_journal
from tests.support.clock import FakeClock

LAG_MS = 15_000
SYMBOL = "BTCUSDT"
BUSY_MS = 90_000
"""For how long something moves now and then; afterwards the account rests, and has to be opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Something that changed the account. A kind of its own: `hidden` is told of by no history."""

    kind: str
    time_ms: int
    amount: Decimal


@dataclass(slots=True, kw_only=True)
class LaggingAccount:
    """The account, and the gateway to it. Asking takes time, in which the account goes on."""

    venue: Venue
    clock: FakeClock
    random: Random
    moves: Sequence[Move]

    def as_of(self, time_ms: int) -> list[Move]:
        return [move for move in self.moves if move.time_ms <= time_ms]

    def wallet(self, moves: Sequence[Move]) -> Decimal:
        return sum((-move.amount if move.kind == "trade" else move.amount for move in moves), Decimal(1000))

    def quantity(self, moves: Sequence[Move]) -> Decimal:
        return sum((move.amount for move in moves if move.kind == "trade"), Decimal(0))

    def trade_ids(self, moves: Sequence[Move]) -> list[int]:
        return [number for number, move in enumerate(self.moves) if move.kind == "trade" and move in moves]

    def _shown(self) -> list[Move]:
        self.clock.advance(self.random.choice([0, 1, 40, 3_000]))
        lag_ms = self.random.choice([0, LAG_MS, self.random.randint(0, LAG_MS)])
        shown = self.as_of(self.clock.now_ms() - lag_ms)
        self.clock.advance(self.random.choice([0, 1, 40, 3_000]))
        return shown

    # What the gateway is asked

    def server_time(self, venue: Venue) -> ServerTime:
        self.clock.advance(self.random.choice([0, 1]))
        now = self.clock.monotonic()
        return ServerTime(venue=venue, server_time_ms=self.clock.now_ms(), sent_monotonic=now, received_monotonic=now)

    def balances(self, venue: Venue) -> list[Balance]:
        shown = self._shown()
        held = {"USDT": self.wallet(shown)} | ({"BTC": self.quantity(shown)} if venue is Venue.SPOT else {})
        return [Balance(venue=venue, asset=name, wallet=held[name], available=held[name]) for name in held]

    def positions(self) -> list[ExchangePosition]:
        quantity = self.quantity(self._shown())
        price = Decimal(20_000)
        return [
            ExchangePosition(
                symbol=SYMBOL, quantity=quantity, entry_price=price, mark_price=price, unrealized_pnl=Decimal(0)
            )
        ]

    def newest_trades(self, venue: Venue, symbol: str) -> list[ExchangeTrade]:
        shown = self._shown()
        return [self._trade(venue, symbol, number) for number in self.trade_ids(shown)]

    def trades_since(self, venue: Venue, symbol: str, *, from_id: int) -> list[ExchangeTrade]:
        return [trade for trade in self.newest_trades(venue, symbol) if trade.trade_id >= from_id]

    def income(self, start_ms: int) -> list[Income]:
        kinds = {"trade": "COMMISSION", "income": "FUNDING_FEE", "elsewhere": "COMMISSION"}
        return [
            Income(
                income_type=kinds[move.kind], asset="USDT", amount=move.amount, time_ms=move.time_ms, transaction_id=0
            )
            for move in self._shown()
            if move.time_ms >= start_ms and move.kind in kinds
        ]

    def all_orders(self, _venue: Venue, _symbol: str, _start_ms: int, *, is_algo: bool) -> list[Any]:
        return []

    def _trade(self, venue: Venue, symbol: str, number: int) -> ExchangeTrade:
        move = self.moves[number]
        return ExchangeTrade(
            venue=venue, symbol=symbol, trade_id=number, order_id=number, side="BUY", price=Decimal(1),
            quantity=move.amount, quote_quantity=move.amount, commission=Decimal(0), commission_asset="USDT",
            time_ms=move.time_ms,
        )  # fmt: skip


@dataclass(slots=True)
class OpeningOnly:
    """Books that keep what they were opened with."""

    opening: dict[str, Any] = field(default_factory=dict)

    def is_open(self, _connection: object, _venue: Venue) -> bool:
        return bool(self.opening)

    def book_opening(self, _connection: object, **told: Any) -> bool:
        self.opening = told
        return True


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    with contextlib.closing(open_fast_journal(Path(tmp_path_factory.mktemp("journal")))) as one:
        yield one


def moves(random: Random, venue: Venue, start_ms: int) -> list[Move]:
    """Return a history around `start_ms` that goes on for a while: dense, sparse or hardly there."""
    kinds = ["trade", "income", "elsewhere"] if venue is Venue.USDM else ["trade", "trade", "hidden"]
    times = [
        start_ms + random.choice([0, random.randint(-LAG_MS, BUSY_MS), random.randint(-500, 500)])
        for _ in range(random.choice([0, 1, 1, 2, 3, 8]))
    ]
    return [_move(random, random.choice(kinds), at) for at in sorted(times)]


def _move(random: Random, kind: str, at_ms: int) -> Move:
    # Small amounts of both signs, that cancel each other out; but what no history tells of may only add up.
    signed = kind in {"income", "elsewhere"} and random.random() < 0.5
    return Move(kind=kind, time_ms=at_ms, amount=Decimal(random.randint(1, 2) * (-1 if signed else 1)))


def context_of(account: LaggingAccount, books: OpeningOnly, journal: Journal) -> ExecutionContext:
    record: Mapping[str, Any] = {"event": lambda *_, **__: None}
    return cast(
        "ExecutionContext",
        SimpleNamespace(
            owner="test", clock=account.clock, journal=journal, gateway=account, books=books,
            horizons=Horizons(opening_read_lag_ms=LAG_MS), symbols={account.venue: (SYMBOL,)}, first_looks={},
            watched_since_ms={},
            record=SimpleNamespace(**record),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("venue", list(Venue))
@settings(max_examples=600, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**63))
def test_opening_is_the_account_at_the_moment_that_it_names(journal: Journal, venue: Venue, seed: int) -> None:
    random = Random(seed)
    clock = FakeClock()
    account = LaggingAccount(venue=venue, clock=clock, random=random, moves=moves(random, venue, clock.now_ms()))
    books = OpeningOnly()
    context = context_of(account, books, journal)
    started_ms = clock.now_ms()
    while not books.opening:
        assert clock.now_ms() < started_ms + BUSY_MS + 10 * LAG_MS, "an account at rest is not opened"
        try:
            ensure_open(context, venue)
        except AccountMovesError as error:
            clock.advance(error.for_ms + random.choice([0, 0, 700, 20_000]))
    told = books.opening
    truth = account.as_of(told["now_ms"])
    held = {one.asset: one.wallet for one in told["balances"]}
    assert held["USDT"] == account.wallet(truth)
    assert sum(one.quantity for one in told["positions"]) + held.get("BTC", Decimal(0)) == account.quantity(truth)
    every = account.trade_ids(account.moves)
    assert [number for number in every if number <= told["watermarks"][SYMBOL]] == account.trade_ids(truth)
