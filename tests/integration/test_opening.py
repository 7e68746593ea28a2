"""Opening the books of an account in use, while the exchange's read side shows its parts as of different moments.

The exchange is the local one over HTTP, and its own clock is moved, so that waiting costs no time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from app.books import handlers
from app.books.check import check_books
from app.exchange.models import PinnedOrder
from app.execution import opening
from app.execution.context import ExecutionContext
from app.execution.follow import Spent, sweep_income, sweep_trades
from app.execution.order import run_order
from app.job_safety.admission import Admitted, EffectKind
from app.job_safety.outcome import Accepted, Venue
from app.journal import watermarks
from tests.support.checker import books_snapshot
from tests.support.nursery import Nursery
from tests.support.paper_process import PaperProcess
from tests.support.redis_server import RedisServer
from tests.support.system import CONFIG, System, system
from workers.opener import Opener

LAG_MS = 15_000
BEHIND_MS = 12_000
"""How far the struck reads lag: less than what opening allows for."""
DAY_MS = 24 * 3600 * 1000
PATIENT = CONFIG.replace("horizons:", f"horizons:\n  opening_read_lag_ms: {LAG_MS}")
READS = {
    Venue.USDM: {
        "balances": "/fapi/v3/balance",
        "positions": "/fapi/v3/positionRisk",
        "trades": "/fapi/v1/userTrades",
        "income": "/fapi/v1/income",
        "everything": "/fapi/v*/*",
    },
    Venue.SPOT: {"balances": "/api/v3/account", "trades": "/api/v3/myTrades", "everything": "/api/v*/*"},
}
LAGGING = [(venue, name) for venue, reads in READS.items() for name in reads]
WALLETS = {Venue.USDM: "futures", Venue.SPOT: "spot"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperProcess]:
    """One account for all tests: each finds what those before have left there, and opens books of its own on it."""
    options = [f"--{word}" for word in ("price=BTCUSDT=20000", "price=ETHUSDT=1000", "limits=wide")]
    deposits = ["--deposit=futures:USDT:1000000", "--deposit=spot:USDT:1000000"]
    with PaperProcess(tmp_path_factory.mktemp("account"), *options, *deposits) as exchange:
        yield exchange


@dataclass(slots=True, kw_only=True)
class Newcomer:
    """A process of a fresh installation on an account in use."""

    here: System
    context: ExecutionContext
    waits: int = 0

    def pass_time(self, milliseconds: int) -> None:
        """Move the exchange's clock on, and let the process measure it again."""
        self.here.exchange.control("POST", "clock", {"advance_ms": milliseconds})
        for venue in Venue:
            self.context.exchange_clock.refresh(venue)

    def lag(self, *paths: str) -> None:
        """Let these reads show the past, and no others."""
        self.here.exchange.faults(
            *({"action": "read_lag_ms", "ms": BEHIND_MS, "match": {"method": "GET", "path": path}} for path in paths)
        )

    def deposit(self, venue: Venue, amount: str = "250") -> None:
        self.here.exchange.deposit(WALLETS[venue], "USDT", amount)

    def trade(self, venue: Venue, symbol: str = "BTCUSDT") -> None:
        """Trade by hand, as far as the books are concerned."""
        now_ms = self.context.gateway.server_time(venue).server_time_ms
        outcome = self.context.gateway.place_order(
            PinnedOrder(
                venue=venue, symbol=symbol, side="BUY", order_type="MARKET", quantity=Decimal("0.100"),
                client_order_id=f"by-hand-{now_ms}", timestamp_ms=now_ms, recv_window_ms=5000,
            )
        )  # fmt: skip
        assert isinstance(outcome, Accepted), outcome

    def open(self, venue: Venue, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Open the books, waiting as long as is asked for; `meanwhile` happens in the middle of the first wait."""
        for _ in range(20):
            try:
                return opening.ensure_open(self.context, venue)
            except opening.AccountMovesError as error:
                for_ms = error.for_ms
            assert 0 < for_ms <= LAG_MS + 1
            self.waits += 1
            self.pass_time(for_ms // 2)
            if self.waits == 1:
                meanwhile()
            self.pass_time(for_ms - for_ms // 2)
        raise AssertionError(f"{venue} is not opened after {self.waits} waits")

    def counted(self) -> dict[str, int]:
        """Return what was counted, this process' own counts included."""
        self.context.record.close()
        return self.here.checker.counters()

    def differences(self, venue: Venue) -> list[str]:
        """Return what the books of `venue` and the exchange's own truth differ in, once all that is shown is booked."""
        self.here.exchange.faults()
        for symbol in self.context.symbols[venue]:
            sweep_trades(self.context, venue, symbol, Spent(weight={}))
        if venue is Venue.USDM:
            sweep_income(self.context)
        with self.context.journal.write() as connection:
            for kind in handlers.KINDS:
                assert not handlers.drain(connection, kind, now_ms=self.context.clock.now_ms() + 1000).failed
            found = check_books(connection, books_snapshot(self.here.exchange.truth()))
        return [str(one) for one in found if one.venue in {venue.value, "all"}]


@pytest.fixture
def here(
    tmp_path: Path, redis_server: RedisServer, database_url: str, account: PaperProcess, nursery: Nursery
) -> Iterator[System]:
    account.faults()
    redis_server.renew()
    with system(
        tmp_path / "system", redis=redis_server, database_url=database_url, exchange=account, nursery=nursery,
        config=PATIENT,
    ) as one:  # fmt: skip
        yield one


@pytest.fixture
def newcomer(here: System) -> Newcomer:
    one = Newcomer(here=here, context=here.context("newcomer"))
    one.pass_time(10 * LAG_MS)
    return one


@pytest.mark.parametrize(("venue", "lagging"), LAGGING)
def test_deposit_just_before_the_first_look_is_in_the_books_once(
    newcomer: Newcomer, venue: Venue, lagging: str
) -> None:
    newcomer.lag(READS[venue][lagging])
    newcomer.deposit(venue)
    assert newcomer.open(venue)
    assert newcomer.differences(venue) == []


@pytest.mark.parametrize(("venue", "lagging"), LAGGING)
def test_trade_just_before_the_first_look_is_in_the_books_once(newcomer: Newcomer, venue: Venue, lagging: str) -> None:
    newcomer.lag(READS[venue][lagging])
    newcomer.trade(venue)
    assert newcomer.open(venue)
    assert newcomer.differences(venue) == []


@pytest.mark.parametrize(("venue", "lagging"), LAGGING)
def test_trade_while_the_account_is_watched_is_in_the_books_once(
    newcomer: Newcomer, venue: Venue, lagging: str
) -> None:
    newcomer.lag(READS[venue][lagging])
    assert newcomer.open(venue, meanwhile=lambda: newcomer.trade(venue))
    assert newcomer.differences(venue) == []


@pytest.mark.parametrize("lagging", list(READS[Venue.USDM]))
def test_deposit_while_the_account_is_watched_is_in_the_books_once(newcomer: Newcomer, lagging: str) -> None:
    newcomer.lag(READS[Venue.USDM][lagging])
    assert newcomer.open(Venue.USDM, meanwhile=lambda: newcomer.deposit(Venue.USDM))
    assert newcomer.differences(Venue.USDM) == []


@pytest.mark.parametrize("lagging", list(READS[Venue.USDM]))
def test_funding_just_before_the_first_look_is_in_the_books_once(newcomer: Newcomer, lagging: str) -> None:
    newcomer.trade(Venue.USDM)
    newcomer.pass_time(10 * LAG_MS)
    newcomer.lag(READS[Venue.USDM][lagging])
    newcomer.here.exchange.control("POST", "funding", {"symbol": "BTCUSDT", "rate": "0.0001"})
    assert newcomer.open(Venue.USDM)
    assert newcomer.differences(Venue.USDM) == []


# How long it takes, and for whom


@pytest.mark.parametrize("venue", list(Venue))
def test_account_that_holds_still_is_opened_after_one_wait_as_of_the_first_look(
    newcomer: Newcomer, venue: Venue
) -> None:
    looked_at_ms = newcomer.context.gateway.server_time(venue).server_time_ms
    assert newcomer.open(venue)
    assert newcomer.waits == 1
    with newcomer.context.journal.read() as connection:
        opened_at_ms = watermarks.opened_at_ms(connection, venue=venue.value) or 0
    assert 0 <= opened_at_ms - looked_at_ms < LAG_MS
    assert newcomer.differences(venue) == []


def test_account_that_never_holds_still_is_not_opened_and_each_look_says_so(newcomer: Newcomer) -> None:
    for _ in range(4):
        newcomer.trade(Venue.USDM)
        with pytest.raises(opening.AccountMovesError, match="held still for 30000 ms; looking again in 1") as caught:
            opening.ensure_open(newcomer.context, Venue.USDM)
        newcomer.pass_time(caught.value.for_ms)
    assert newcomer.counted()["account_moves"] == 3
    assert newcomer.open(Venue.USDM)
    assert newcomer.differences(Venue.USDM) == []


def test_futures_account_that_goes_on_moving_is_opened_as_of_a_moment_before_which_it_held_still(
    newcomer: Newcomer,
) -> None:
    with pytest.raises(opening.AccountMovesError) as caught:
        opening.ensure_open(newcomer.context, Venue.USDM)
    newcomer.trade(Venue.USDM)
    newcomer.pass_time(caught.value.for_ms)
    newcomer.trade(Venue.USDM)
    assert opening.ensure_open(newcomer.context, Venue.USDM)
    assert newcomer.differences(Venue.USDM) == []


def test_account_that_never_rests_is_opened_at_last_with_an_alarm(newcomer: Newcomer) -> None:
    """Nothing is sent before the books are open, exits included."""
    looks = 0
    while True:
        newcomer.trade(Venue.USDM)
        try:
            opened = opening.ensure_open(newcomer.context, Venue.USDM)
        except opening.AccountMovesError as error:
            newcomer.pass_time(error.for_ms)
            looks += 1
        else:
            break
    assert opened
    assert looks >= opening.WATCH_LAGS - 1
    assert newcomer.counted()["alarm_opened_restless"] == 1


def test_order_waits_until_the_books_are_open_and_holds_up_nobody(newcomer: Newcomer) -> None:
    key = newcomer.here.order("early", valid_for_s=600)
    started_ms = newcomer.context.clock.now_ms()
    assert run_order(newcomer.context, key).startswith("snoozed: usdm: its books are opened once")
    row = newcomer.here.row(key)
    assert row.state == "RECEIVED"
    assert row.attempt == 0
    assert LAG_MS - 1000 < row.not_before_ms - started_ms < 2 * LAG_MS
    newcomer.pass_time(LAG_MS)
    assert newcomer.open(Venue.USDM)


def test_two_processes_that_watch_one_account_book_its_opening_once(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = newcomer.here.context("other")
    for context in (newcomer.context, other):
        with pytest.raises(opening.AccountMovesError):
            opening.ensure_open(context, Venue.USDM)
    newcomer.pass_time(LAG_MS + 1)
    other.exchange_clock.refresh(Venue.USDM)
    ends: list[bool] = []

    def be_faster(*_: object, **__: object) -> list[object]:
        if not ends:
            ends.append(opening.ensure_open(other, Venue.USDM))
        return []

    # The last question before the books are written: the other process writes first.
    monkeypatch.setattr(newcomer.context.gateway, "all_orders", be_faster)
    ends.append(opening.ensure_open(newcomer.context, Venue.USDM))
    assert ends == [True, False]
    other.record.close()
    assert newcomer.counted()["venue_opened"] == 1
    assert newcomer.differences(Venue.USDM) == []


def test_order_that_another_process_sent_after_the_opening_is_no_reason_to_look_on(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = newcomer.here.context("other")
    for context in (newcomer.context, other):
        with pytest.raises(opening.AccountMovesError):
            opening.ensure_open(context, Venue.USDM)
    newcomer.pass_time(LAG_MS + 1)
    other.exchange_clock.refresh(Venue.USDM)
    balances = newcomer.context.gateway.balances

    def come_late(venue: Venue) -> object:
        assert opening.ensure_open(other, venue)
        newcomer.trade(venue)
        return balances(venue)

    monkeypatch.setattr(newcomer.context.gateway, "balances", come_late)
    assert opening.ensure_open(newcomer.context, Venue.USDM) is False
    other.record.close()
    assert "account_moves" not in newcomer.counted()
    assert newcomer.differences(Venue.USDM) == []


def test_process_that_dies_while_it_watches_costs_a_new_wait_and_nothing_else(newcomer: Newcomer) -> None:
    newcomer.deposit(Venue.USDM)
    with pytest.raises(opening.AccountMovesError):
        opening.ensure_open(newcomer.context, Venue.USDM)
    newcomer.pass_time(LAG_MS // 2)
    newcomer.context.first_looks.clear()
    assert newcomer.open(Venue.USDM)
    assert newcomer.differences(Venue.USDM) == []


def test_exchange_clock_that_is_set_back_lets_the_watch_begin_anew(newcomer: Newcomer) -> None:
    with pytest.raises(opening.AccountMovesError):
        opening.ensure_open(newcomer.context, Venue.USDM)
    first = newcomer.context.first_looks[Venue.USDM]
    newcomer.pass_time(-5_000)
    with pytest.raises(opening.AccountMovesError, match="looking again in 1 ms"):
        opening.ensure_open(newcomer.context, Venue.USDM)
    assert newcomer.open(Venue.USDM)
    with newcomer.context.journal.read() as connection:
        assert (watermarks.opened_at_ms(connection, venue="usdm") or 0) < first.until_ms + LAG_MS
    newcomer.pass_time(10_000)
    assert newcomer.differences(Venue.USDM) == []


@pytest.mark.parametrize("venue", list(Venue))
def test_last_trade_of_a_symbol_counts_however_long_ago_it_was(newcomer: Newcomer, venue: Venue) -> None:
    newcomer.trade(venue, "ETHUSDT")
    newcomer.pass_time(8 * DAY_MS)
    assert newcomer.open(venue)
    with newcomer.context.journal.read() as connection:
        assert watermarks.opening_trade_id(connection, venue=venue.value, symbol="ETHUSDT") >= 0
    assert newcomer.differences(venue) == []


def test_reconciler_leaves_a_venue_alone_that_another_process_reads_and_looks_again_soon(newcomer: Newcomer) -> None:
    here, context = newcomer.here, newcomer.context
    other = here.context("worker")
    held = {venue: other.admission.ask("opening", venue.value, kind=EffectKind.BOOK) for venue in Venue}
    opener = Opener(context)
    opener.step()
    assert context.first_looks == {}
    assert "venue_not_opened" not in newcomer.counted()
    for venue, answer in held.items():
        assert isinstance(answer, Admitted)
        other.guard.release("opening", venue.value, answer.token)

    def have_looked() -> bool:
        opener.step()
        return set(context.first_looks) == set(Venue)

    here.until(have_looked, "its first look at both accounts")
    free = [other.admission.ask("opening", venue.value, kind=EffectKind.BOOK) for venue in Venue]
    assert all(isinstance(answer, Admitted) for answer in free)  # it keeps nobody off between two looks


def test_reconciler_opens_both_venues_by_itself(newcomer: Newcomer) -> None:
    here = newcomer.here
    impatient = PATIENT.replace(str(LAG_MS), "1200")
    (here.folder / "config" / "config.yaml").write_text(impatient)
    newcomer.deposit(Venue.USDM)
    here.start("reconciler")

    def are_open() -> bool:
        with here.installation.journal.read() as connection:
            return all(newcomer.context.books.is_open(connection, venue) for venue in Venue)

    here.until(are_open, "the books of both venues to be open")
    assert [newcomer.differences(venue) for venue in Venue] == [[], []]
