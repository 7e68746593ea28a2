"""The books on real databases: once, whatever is told twice, late, out of order or from two sides at the same time."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.books import booked, booking, check, handlers, income, ledger, opening, pnl, reports
from app.books.booking import POST_LEDGER, POST_PNL, record_fills, record_owned
from app.books.check import ExchangeSnapshot, check_alone, check_books
from app.books.fills import Fill
from app.exchange.models import Balance, ExchangePosition, ExchangeTrade, Income
from app.intents import Entry
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError, WrongInstallationError
from app.job_safety.outcome import Venue
from app.journal import followups, schema
from app.journal.engine import Journal
from tests.unit.books import oracle

D = Decimal
NOW = 1_795_219_200_000  # 2026-11-21T00:00:00Z
DAY = 86_400_000
KEYS = ("k1", "k2")


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    journal = Journal(database_url)
    with journal.write() as connection:
        for key in KEYS:
            connection.execute(insert(schema.intents), intent(key))
    yield journal
    journal.close()


def intent(key: str, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "key": key,
        "type": "order",
        "state": "RECEIVED",
        "queue": "orders",
        "content": "{}",
        "content_hash": "",
        "opens_risk": True,
        "created_at_ms": NOW,
        "updated_at_ms": NOW,
    }
    return row | changes


def wipe(journal: Journal) -> None:
    with journal.write() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.intents:
                connection.execute(table.delete())


def trade(trade_id: int, side: str = "BUY", quantity: str = "0.010", price: str = "50000", **changes) -> ExchangeTrade:
    fields = {
        "venue": Venue.USDM,
        "symbol": "BTCUSDT",
        "trade_id": trade_id,
        "order_id": 1,
        "side": side,
        "price": D(price),
        "quantity": D(quantity),
        "quote_quantity": D(price) * D(quantity),
        "commission": D("0.2"),
        "commission_asset": "USDT",
        "time_ms": NOW,
    }
    return ExchangeTrade(**(fields | changes))


def record(journal: Journal, trades: Sequence[ExchangeTrade], key: str | None = "k1") -> list[int]:
    with journal.write() as connection:
        new = record_fills(connection, account="main", trades=trades, key=key, now_ms=NOW)
    return [each.trade_id for each in new]


def drain(journal: Journal) -> None:
    for kind in (POST_LEDGER, POST_PNL):
        while True:
            with journal.write() as connection:
                done = handlers.drain(connection, kind, now_ms=NOW)
            assert not done.failed
            if not done.done:
                break


def assert_equal_to_oracle(journal: Journal, trades, owners) -> None:
    expected = oracle.compute(trades, owners)
    with journal.read() as connection:
        assert check_alone(connection) == []
        balances = {
            (row.account, row.asset): Fraction(row.amount)
            for row in reports.ledger_balances(connection, include_zero=True)
        }
        positions = reports.positions(connection, include_flat=True)
        days = reports.pnl_daily(connection)
    assert {at: amount for at, amount in balances.items() if amount} == {
        at: amount for at, amount in expected.balances.items() if amount
    }
    assert {
        (row.venue, row.symbol): (Fraction(row.quantity), Fraction(row.entry_price), Fraction(row.realized_pnl))
        for row in positions
    } == {at: (lot.quantity, lot.entry, lot.realized) for at, lot in expected.positions.items()}
    for column in ("realized", "commission"):
        kept = {(row.venue, row.day, row.asset): Fraction(getattr(row, column)) for row in days}
        wanted = getattr(expected, column)
        assert {at: amount for at, amount in kept.items() if amount} == {at: a for at, a in wanted.items() if a}
    assert sum(row.trades for row in days) == len(trades)


def decimals(largest: int, places: int, smallest: int = 1) -> st.SearchStrategy[Decimal]:
    return st.integers(smallest, largest).map(lambda n: D(n).scaleb(-places))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[ExchangeTrade], dict[tuple[str, str, int], str | None]]:
    trades, owners = [], {}
    for trade_id in range(draw(st.integers(1, 10))):
        venue, symbol = draw(
            st.sampled_from(
                [(Venue.USDM, "BTCUSDT"), (Venue.USDM, "ETHUSDC"), (Venue.SPOT, "BNBUSDT"), (Venue.SPOT, "ETHBTC")]
            )
        )
        key = draw(st.sampled_from([*KEYS, None]))
        trades.append(
            ExchangeTrade(
                venue=venue,
                symbol=symbol,
                trade_id=trade_id,
                order_id={"k1": 1, "k2": 2, None: 3}[key],
                side=draw(st.sampled_from(["BUY", "SELL"])),
                price=draw(decimals(10**14, 8)),
                quantity=draw(st.one_of(decimals(10**20, 18), decimals(5, 1))),
                quote_quantity=D(0),
                commission=draw(decimals(10**10, 8, -(10**5))),
                commission_asset=draw(st.sampled_from(["BNB", *oracle.ASSETS[symbol]])),
                time_ms=NOW + draw(st.integers(-DAY, DAY)),
                realized_pnl=draw(decimals(10**20, 18, -(10**20))) if venue is Venue.USDM else D(0),
            )
        )
        owners[(str(venue), symbol, trade_id)] = key
    return trades, owners


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.randoms(use_true_random=False))
def test_any_history_booked_in_any_order_and_batching_equals_an_independent_calculation(journal, history, chance):
    trades, owners = history
    wipe(journal)
    deliver_all(journal, trades, owners, chance)
    drain(journal)
    assert_equal_to_oracle(journal, trades, owners)


def deliver_all(journal: Journal, trades, owners, chance: random.Random) -> None:
    """Deliver every trade at least once with its owner, and some of them before or after as nobody's."""
    told = [(each, owners[(str(each.venue), each.symbol, each.trade_id)]) for each in trades]
    told += [(each, owner if chance.random() < 0.5 else None) for each, owner in told if chance.random() < 0.5]
    chance.shuffle(told)
    while told:
        size = chance.randint(1, len(told))
        batch, told = told[:size], told[size:]
        keys: tuple[str | None, ...] = (*KEYS, None)
        if chance.random() < 0.5:
            keys = (None,)
            for symbol in sorted({(each.venue, each.symbol) for each, _ in batch}):
                owned = {
                    key: [each for each, owner in batch if (owner, (each.venue, each.symbol)) == (key, symbol)]
                    for key in KEYS
                }
                with journal.write() as connection:
                    record_owned(connection, account="main", owned=owned, now_ms=NOW)
        for key in keys:
            chosen = [each for each, owner in batch if owner == key]
            with journal.write() as connection:
                record_fills(connection, account="main", trades=chosen, key=key, now_ms=NOW)
            if chance.random() < 0.3:
                with journal.write() as connection:
                    handlers.drain(connection, chance.choice([POST_LEDGER, POST_PNL]), now_ms=NOW, limit=2)


@pytest.mark.parametrize("seed", range(3))
def test_concurrent_deliveries_and_handlers_equal_an_independent_calculation(journal, seed):
    chance = random.Random(seed)
    symbols = [(Venue.USDM, "BTCUSDT"), (Venue.SPOT, "ETHBTC"), (Venue.SPOT, "BNBUSDT")]
    trades, owners = [], {}
    for trade_id in range(60):
        venue, symbol = chance.choice(symbols)
        key = chance.choice([*KEYS, None])
        trades.append(
            trade(
                trade_id,
                chance.choice(["BUY", "SELL"]),
                f"{chance.randint(1, 10**6)}e-6",
                f"{chance.randint(1, 10**8)}e-4",
                venue=venue,
                symbol=symbol,
                commission_asset=chance.choice(["BNB", oracle.ASSETS[symbol][1]]),
                order_id={"k1": 1, "k2": 2, None: 3}[key],
                time_ms=NOW + trade_id * 10**7,
            )
        )
        owners[(str(venue), symbol, trade_id)] = key
    failures: list[BaseException] = []
    lost_races: list[str] = []

    def work(number: int) -> None:
        own = Journal(journal.url.render_as_string(hide_password=False))
        try:
            retried(lambda own: deliver_all(own, trades, owners, random.Random(seed * 100 + number)), own, lost_races)
            for kind in (POST_LEDGER, POST_PNL):
                retried(lambda own, kind=kind: drain_once(own, kind), own, lost_races)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    drain(journal)
    assert_equal_to_oracle(journal, trades, owners)
    assert lost_races == []


def drain_once(journal: Journal, kind: str) -> None:
    with journal.write() as connection:
        handlers.drain(connection, kind, now_ms=NOW)


def retried(step, journal: Journal, lost_races: list[str]) -> None:
    for _ in range(20):
        try:
            step(journal)
        except StoreUnavailableError as error:
            lost_races.append(str(error))
        else:
            return
    raise AssertionError("could not get through in 20 tries")


def test_trade_told_twice_is_booked_once(journal):
    assert record(journal, [trade(1), trade(2), trade(1)]) == [1, 2]
    assert record(journal, [trade(2), trade(1)]) == []
    drain(journal)
    with journal.read() as connection:
        assert [row.quantity for row in reports.positions(connection)] == [D("0.020")]
        assert connection.execute(select(func.count()).select_from(schema.followups)).scalar() == 2


def test_followup_delivered_twice_has_its_effect_once(journal):
    record(journal, [trade(1)])
    with journal.read() as connection:
        (open_one,) = followups.open_of_kind(connection, POST_LEDGER, now_ms=NOW, limit=9)
        (pnl_one,) = followups.open_of_kind(connection, POST_PNL, now_ms=NOW, limit=9)
    for expected in (True, False):
        with journal.write() as connection:
            assert handlers.handle_post_ledger(connection, open_one, now_ms=NOW) is expected
            assert handlers.handle_post_pnl(connection, pnl_one, now_ms=NOW) is expected
    with journal.read() as connection:
        balances = {(row.account, row.asset): row.amount for row in reports.ledger_balances(connection)}
        assert balances[("wallet:usdm", "USDT")] == D("-0.2")
        assert [(row.commission, row.trades) for row in reports.pnl_daily(connection)] == [(D("0.2"), 1)]


def test_crash_before_the_commit_leaves_nothing_and_the_followup_open(journal):
    record(journal, [trade(1)])
    with pytest.raises(KeyboardInterrupt):
        drain_and_die(journal)
    with journal.read() as connection:
        assert reports.ledger_balances(connection) == []
        assert len(followups.open_of_kind(connection, POST_LEDGER, now_ms=NOW, limit=9)) == 1


def drain_and_die(journal: Journal) -> None:
    with journal.write() as connection:
        assert handlers.drain(connection, POST_LEDGER, now_ms=NOW).done
        raise KeyboardInterrupt


def test_late_spot_trade_corrects_what_later_trades_have_realized(journal):
    spot = {"venue": Venue.SPOT, "commission": D(0)}
    record(journal, [trade(1, "BUY", "1", "10", **spot), trade(3, "SELL", "1", "12", **spot)])
    drain(journal)
    with journal.read() as connection:
        assert reports.pnl_total(connection)[0].realized == D(2)
    record(journal, [trade(2, "BUY", "1", "20", **spot)])
    drain(journal)
    with journal.read() as connection:
        assert reports.pnl_total(connection)[0].realized == D(-3)
        (position,) = reports.positions(connection)
        assert (position.quantity, position.entry_price, position.realized_pnl, position.last_trade_id) == (
            1,
            15,
            -3,
            3,
        )
        assert check_alone(connection) == []


def test_external_trade_that_turns_out_to_be_ours_leaves_the_external_account(journal):
    record(journal, [trade(1, realized_pnl=D(5))], key=None)
    drain(journal)
    with journal.read() as connection:
        assert reports.external_balances(connection) == {"BTCUSDT.PERP": D("-0.010"), "USDT": D("-4.8")}
    assert record(journal, [trade(1, realized_pnl=D(5))], key="k1") == []
    drain(journal)
    with journal.read() as connection:
        assert set(reports.external_balances(connection).values()) == {D(0)}
        assert check_alone(connection) == []
        page = reports.postings(connection, key="k1")
        assert {line.transaction_id for line in page.lines} == {"adopt:trade:usdm:BTCUSDT:1"}
    assert record(journal, [trade(1, realized_pnl=D(5))], key=None) == []


@pytest.mark.parametrize(
    "changes", [{"price": D(1)}, {"quantity": D(1)}, {"side": "SELL"}, {"order_id": 9}, {"commission": D(1)}]
)
def test_known_trade_with_another_content_is_refused_and_changes_nothing(journal, changes):
    record(journal, [trade(1)])
    with pytest.raises(InvariantViolatedError, match="usdm:BTCUSDT:1 is told with another"):
        record(journal, [replace(trade(1), **changes), trade(2)])
    with journal.read() as connection:
        assert [row.quantity for row in reports.positions(connection)] == [D("0.010")]


def test_trade_of_one_intent_is_not_given_to_another(journal):
    record(journal, [trade(1)], key="k1")
    with pytest.raises(InvariantViolatedError, match="belongs to another intent"):
        record(journal, [trade(1)], key="k2")


def test_trades_of_another_account_are_refused(journal):
    with journal.write() as connection:
        connection.execute(
            insert(schema.journal_meta),
            {"id": 1, "installation": "i", "account": "main", "mode": "paper", "created_at_ms": 0},
        )
    with pytest.raises(WrongInstallationError, match="of account main, not of other"), journal.write() as connection:
        record_fills(connection, account="other", trades=[trade(1)], key=None, now_ms=NOW)


def test_database_itself_refuses_a_double_posting(journal):
    record(journal, [trade(1)])
    drain(journal)
    for table in (schema.fills, schema.position_entries, schema.pnl_entries, schema.transactions, schema.postings):
        with journal.read() as connection:
            row = dict(connection.execute(select(table)).mappings().first())
        with pytest.raises(IntegrityError), journal.write() as connection:
            connection.execute(insert(table), row)


def test_amounts_survive_the_database_to_the_last_digit(journal):
    entries = [
        Entry(account="a", asset="X", amount=D("0.1")),
        Entry(account="a", asset="X", amount=D("0.2")),
        Entry(account="b", asset="X", amount=D("-0.3")),
        Entry(account="a", asset="Y", amount=D("123456789012345678901.123456789012345678")),
        Entry(account="b", asset="Y", amount=D("-123456789012345678901.123456789012345678")),
    ]
    with journal.write() as connection:
        assert ledger.post_entries(connection, key="k", description="d", entries=entries, time_ms=NOW, now_ms=NOW)
    with journal.write() as connection:
        assert not ledger.post_entries(connection, key="k", description="d", entries=entries, time_ms=NOW, now_ms=NOW)
    record(journal, [trade(1, quantity="1.000000000000000001", price="0.00000001")])
    with journal.read() as connection:
        balances = {(row.account, row.asset): format(row.amount, "f") for row in reports.ledger_balances(connection)}
        (position,) = reports.positions(connection)
    assert balances[("a", "X")] == "0.3"
    assert balances[("a", "Y")] == "123456789012345678901.123456789012345678"
    assert format(position.quantity, "f") == "1.000000000000000001"
    assert format(position.entry_price, "f") == "0.00000001"


def test_batch_of_fifty_trades_costs_a_handful_of_statements(journal):
    statements: list[str] = []
    event.listen(
        journal.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_rest: statements.append(statement),
    )
    counts = []
    for step in (
        lambda: record(journal, [trade(number) for number in range(50)]),
        lambda: drain_once(journal, POST_LEDGER),
        lambda: drain_once(journal, POST_PNL),
    ):
        statements.clear()
        step()
        counts.append(sum(not text.startswith(("BEGIN", "SAVEPOINT", "RELEASE")) for text in statements))
    assert max(counts) <= 12, counts


def finish(journal: Journal, key: str, executed: str | None, state: str = "FILLED") -> None:
    with journal.write() as connection:
        quantity = None if executed is None else D(executed)
        row = update(schema.intents).where(schema.intents.c.key == key)
        connection.execute(row.values(state=state, executed_quantity=quantity))


def booked_at(journal: Journal, key: str) -> int | None:
    with journal.read() as connection:
        return connection.execute(select(schema.intents.c.booked_at_ms).where(schema.intents.c.key == key)).scalar()


@pytest.mark.parametrize("order", [(POST_LEDGER, POST_PNL), (POST_PNL, POST_LEDGER)])
def test_intent_is_booked_by_whichever_book_comes_last(journal, order):
    record(journal, [trade(1), trade(2)])
    finish(journal, "k1", "0.020")
    drain_once(journal, order[0])
    assert booked_at(journal, "k1") is None
    drain_once(journal, order[1])
    assert booked_at(journal, "k1") == NOW


def test_intent_that_finishes_after_its_trades_are_posted_is_booked_by_its_own_side(journal):
    record(journal, [trade(1)])
    drain(journal)
    assert booked_at(journal, "k1") is None
    finish(journal, "k1", "0.010", "CANCELED")
    with journal.write() as connection:
        assert booked.mark_booked(connection, "k1", NOW + 5)
        assert not booked.mark_booked(connection, "k1", NOW + 9)
    assert booked_at(journal, "k1") == NOW + 5


def test_intent_is_not_booked_while_a_fill_is_missing(journal):
    record(journal, [trade(1)])
    finish(journal, "k1", "0.020")
    drain(journal)
    assert booked_at(journal, "k1") is None


@pytest.mark.parametrize(
    ("state", "executed", "expected"), [("REJECTED", None, NOW), ("EXPIRED", "0", NOW), ("ACCEPTED", "0", None)]
)
def test_finished_intent_without_fills_is_booked_at_once(journal, state, executed, expected):
    finish(journal, "k1", executed, state)
    with journal.write() as connection:
        booked.mark_booked(connection, "k1", NOW)
    assert booked_at(journal, "k1") == expected


def test_intent_is_booked_when_ledger_and_pnl_finish_at_the_same_time(journal):
    record(journal, [trade(1)])
    finish(journal, "k1", "0.010")
    url = journal.url.render_as_string(hide_password=False)
    other = Journal(url)
    thread = threading.Thread(target=drain_once, args=(other, POST_PNL))
    with journal.write() as connection:
        handlers.drain(connection, POST_LEDGER, now_ms=NOW)
        thread.start()
        wait_until_blocked(journal, thread)
    thread.join(30)
    other.close()
    assert booked_at(journal, "k1") == NOW


def test_intent_is_booked_when_two_callers_see_only_their_own_book(journal):
    """Without holding the intent, each would miss what the other has not committed yet, and nobody would mark it."""
    record(journal, [trade(1)])
    finish(journal, "k1", "0.010")
    fill = Fill(account="main", key="k1", trade=trade(1))
    other = Journal(journal.url.render_as_string(hide_password=False))

    def enter() -> None:
        with other.write() as connection:
            pnl.post_trades(connection, [fill])
            booked.mark_booked(connection, "k1", NOW)

    thread = threading.Thread(target=enter)
    with journal.write() as connection:
        ledger.post_trades(connection, [fill], now_ms=NOW)
        assert not booked.mark_booked(connection, "k1", NOW)
        thread.start()
        wait_until_blocked(journal, thread)
    thread.join(30)
    other.close()
    assert booked_at(journal, "k1") == NOW


def wait_until_blocked(journal: Journal, thread: threading.Thread) -> None:
    """On PostgreSQL, until the other transaction waits for a lock; on SQLite it cannot even begin."""
    deadline = time.monotonic() + 20
    while not journal.is_sqlite and thread.is_alive():
        with journal.read() as connection:
            waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            if connection.execute(waiting).scalar():
                return
        assert time.monotonic() < deadline
    assert journal.is_sqlite, "nobody had to wait"


def test_followup_that_breaks_a_promise_does_not_hold_up_the_others(journal):
    record(journal, [trade(1)])
    record(journal, [trade(2)])
    with journal.write() as connection:
        broken = followups.open_of_kind(connection, POST_LEDGER, now_ms=NOW, limit=9)[0]
        payload = text("UPDATE followups SET payload = replace(payload, '[1]', '[99]') WHERE key = :key")
        connection.execute(payload, {"key": broken.key})
    with journal.write() as connection:
        drained = handlers.drain(connection, POST_LEDGER, now_ms=NOW)
    assert drained.failed == (broken.key,)
    assert len(drained.done) == 1
    with journal.read() as connection:
        assert {row.asset: row.amount for row in reports.ledger_balances(connection)}["BTCUSDT.PERP"] != 0
        error = connection.execute(select(schema.followups.c.last_error).where(schema.followups.c.key == broken.key))
        assert "never recorded" in error.scalar_one()
        assert followups.open_of_kind(connection, POST_LEDGER, now_ms=NOW, limit=9) == []


def test_transaction_that_does_not_sum_to_zero_is_never_written(journal):
    entries = [Entry(account="a", asset="X", amount=D("0.1")), Entry(account="b", asset="X", amount=D("-0.10001"))]
    with pytest.raises(InvariantViolatedError, match="does not sum to zero"), journal.write() as connection:
        ledger.post_entries(connection, key="k", description="d", entries=entries, time_ms=NOW, now_ms=NOW)
    with journal.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.transactions)).scalar() == 0


def test_followup_that_fails_halfway_leaves_nothing_behind(journal):
    """The sum of both trades has more digits than can be added exactly: one batch cannot hold both."""
    spot = {"venue": Venue.SPOT, "commission_asset": "BTC"}
    record(journal, [trade(1, price="1e39", quantity="1e30", symbol="ETHBTC", **spot)])
    record(journal, [trade(2, price="1e-39", quantity="1e-39", symbol="BNBBTC", **spot)])
    with journal.write() as connection:
        drained = handlers.drain(connection, POST_LEDGER, now_ms=NOW)
    assert len(drained.done) + len(drained.failed) == 2
    with journal.read() as connection:
        posted = connection.execute(select(schema.transactions.c.id)).scalars().all()
        held_now = ledger.balances(connection, ["wallet:spot"])
    assert len(posted) == len(drained.done) >= 1
    assert len({asset for _, asset in held_now} & {"ETH", "BNB"}) == len(posted)


def opened(journal: Journal, **changes) -> bool:
    fields = {
        "account": "main",
        "venue": Venue.USDM,
        "balances": [balance("1000.5"), balance("3", "BNB"), balance("7", venue=Venue.SPOT)],
        "positions": [held("BTCUSDT", "-0.5", "40000"), held("ETHUSDT", "0", "0")],
        "watermarks": {"BTCUSDT": 10, "ETHUSDT": 4},
        "now_ms": NOW,
    }
    with journal.write() as connection:
        return opening.book_opening(connection, **(fields | changes))


def balance(wallet: str, asset: str = "USDT", venue: Venue = Venue.USDM) -> Balance:
    return Balance(venue=venue, asset=asset, wallet=D(wallet), available=D(wallet))


def held(symbol: str, quantity: str, entry: str) -> ExchangePosition:
    return ExchangePosition(
        symbol=symbol, quantity=D(quantity), entry_price=D(entry), mark_price=D(entry), unrealized_pnl=D(0)
    )


def snapshot(**changes) -> ExchangeSnapshot:
    fields = {
        "balances": [balance("1020.3"), balance("3", "BNB")],
        "positions": [held("BTCUSDT", "-0.3", "40000")],
        "trades": [trade(11, "BUY", "0.2", "39900", realized_pnl=D(20))],
        "venues": frozenset({Venue.USDM}),
    }
    return ExchangeSnapshot(**(fields | changes))


@pytest.fixture
def trading(journal: Journal) -> Journal:
    """Books opened on an account that was not empty, with one trade since."""
    assert opened(journal)
    old = trade(10, "BUY", "0.1", "1", realized_pnl=D(9))
    assert record(journal, [old, trade(11, "BUY", "0.2", "39900", realized_pnl=D(20))], key=None) == [11]
    drain(journal)
    return journal


def differences(journal: Journal, seen: ExchangeSnapshot) -> list[tuple[str, str, str]]:
    with journal.read() as connection:
        return [(each.what, each.ours, each.theirs) for each in check_books(connection, seen)]


def test_books_opened_on_an_account_that_is_not_empty_equal_the_exchange(trading):
    assert differences(trading, snapshot()) == []
    with trading.read() as connection:
        (position,) = reports.positions(connection)
        assert (position.quantity, position.entry_price, position.realized_pnl) == (D("-0.3"), D(40000), D(20))
        assert connection.execute(select(schema.fills.c.trade_id)).scalars().all() == [11]


def test_books_are_opened_once_per_venue(trading):
    assert not opened(trading, balances=[balance("5")])
    assert opened(trading, venue=Venue.SPOT, positions=[], watermarks={})
    assert differences(trading, snapshot()) == []
    with trading.read() as connection:
        assert opening.is_open(connection, Venue.SPOT)
        assert ledger.balances(connection, ["wallet:spot"]) == {("wallet:spot", "USDT"): D(7)}


def test_opening_of_an_empty_account_needs_no_transaction(journal):
    assert opened(journal, balances=[], positions=[], watermarks={})
    with journal.read() as connection:
        assert check_alone(connection) == []


def test_opening_after_trades_were_booked_is_refused(journal):
    record(journal, [trade(11)])
    with pytest.raises(InvariantViolatedError, match="cannot be opened"):
        opened(journal)


def test_late_trade_is_replayed_on_top_of_the_opening(trading):
    record(trading, [trade(13, "SELL", "0.1", "41000")])
    record(trading, [trade(12, "BUY", "0.3", "39000", realized_pnl=D(300))])
    with trading.read() as connection:
        (position,) = reports.positions(connection)
    assert (position.quantity, position.entry_price, position.realized_pnl) == (D("-0.1"), D(41000), D(320))


def test_own_trade_below_the_watermark_finishes_its_order_and_is_booked_nowhere_again(trading):
    assert record(trading, [trade(9, "BUY", "0.1")], key="k1") == []
    finish(trading, "k1", "0.1")
    with trading.write() as connection:
        assert booked.mark_booked(connection, "k1", NOW)
    assert differences(trading, snapshot()) == []
    assert record(trading, [trade(9, "BUY", "0.1")], key="k1") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"balances": [balance("1020.3")]}, ("wallet BNB", "3", "0")),
        (
            {"balances": [balance("1020.300000000000000001"), balance("3", "BNB")]},
            ("wallet USDT", "1020.3", "1020.300000000000000001"),
        ),
        ({"positions": []}, ("position BTCUSDT", "-0.3", "0")),
        (
            {"positions": [held("BTCUSDT", "-0.3", "40000"), held("ETHUSDT", "1", "1")]},
            ("position ETHUSDT", "0", "1"),
        ),
        ({"positions": [held("BTCUSDT", "-0.3", "39999.98")]}, ("entry price BTCUSDT", "40000", "39999.98")),
        (
            {"trades": [trade(11, "BUY", "0.2", "39900", realized_pnl=D(20)), trade(12)]},
            ("trade BTCUSDT:12", "none", "BUY 0.010 at 50000, order 1"),
        ),
        (
            {"trades": [], "trades_from": {(Venue.USDM, "BTCUSDT"): 0}},
            ("trade BTCUSDT:11", "BUY 0.2 at 39900, order 1", "none"),
        ),
        (
            {"trades": [trade(11, "BUY", "0.2", "39900", realized_pnl=D(21))]},
            ("trade BTCUSDT:11 realized_pnl", "20", "21"),
        ),
    ],
)
def test_check_finds_every_kind_of_difference_from_the_exchange(trading, changes, expected):
    assert differences(trading, snapshot(**changes)) == [expected]


def test_entry_price_is_compared_to_the_digits_that_the_exchange_shows(trading):
    assert differences(trading, snapshot(positions=[held("BTCUSDT", "-0.3", "39999.9999")])) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            "UPDATE postings SET amount = '8' WHERE account = 'fees:usdm' OR asset = 'BNB' AND line = 4",
            "transaction opening:usdm BNB",
        ),
        ("UPDATE ledger_balances SET amount = '1' WHERE account = 'wallet:usdm' AND asset = 'BNB'", "wallet:usdm BNB"),
        (
            "DELETE FROM postings WHERE transaction_id = 'trade:usdm:BTCUSDT:11'",
            "lines of transaction trade:usdm:BTCUSDT:11",
        ),
        ("DELETE FROM pnl_entries", "trade:usdm:BTCUSDT:11"),
        ("DELETE FROM position_entries WHERE trade_id = 11", "trade:usdm:BTCUSDT:11"),
        ("UPDATE pnl_daily SET trades = 2", "trades usdm 2026-11-21 USDT"),
        ("UPDATE positions SET quantity = '-0.4'", "position (theirs: contracts in the ledger) BTCUSDT"),
    ],
)
def test_check_finds_what_is_wrong_within_the_books(trading, damage, expected):
    with trading.write() as connection:
        connection.execute(text(damage))
    with trading.read() as connection:
        found = check_alone(connection)
    assert any(each.what.endswith(expected) for each in found), found


def funding(transaction_id: int, amount: str, income_type: str = "FUNDING_FEE", **changes) -> Income:
    fields = {"income_type": income_type, "asset": "USDT", "amount": D(amount), "time_ms": NOW}
    return Income(transaction_id=transaction_id, symbol="BTCUSDT", **(fields | changes))


def test_income_is_booked_once_and_what_trades_carry_is_passed_over(trading):
    told = [
        funding(1, "-0.7"),
        funding(1, "50", "TRANSFER"),
        funding(2, "0.1"),
        funding(3, "0.05", "API_REBATE", asset="BNB"),
        funding(4, "20", "REALIZED_PNL"),
        funding(5, "-0.2", "COMMISSION"),
        funding(6, "-9", time_ms=NOW - 1),
    ]
    for expected in (4, 0):
        with trading.write() as connection:
            assert len(income.book_income(connection, [*told, told[0]], now_ms=NOW)) == expected
    assert differences(trading, snapshot(balances=[balance("1069.7"), balance("3.05", "BNB")])) == []
    with trading.read() as connection:
        (usdt,) = reports.pnl_total(connection)
        assert (usdt.realized, usdt.commission, usdt.funding, usdt.net) == (D(20), D("0.2"), D("-0.6"), D("19.2"))


def test_pnl_intent_for_a_trade_made_elsewhere_is_entered_once_and_survives_its_fill(journal):
    fill = Fill(account="main", key=None, trade=trade(1, realized_pnl=D(3)))
    for expected in (1, 0):
        with journal.write() as connection:
            assert len(pnl.post_trades(connection, [fill])) == expected
    record(journal, [fill.trade])
    drain(journal)
    with journal.read() as connection:
        assert [row.realized for row in reports.pnl_total(connection)] == [D(3)]


def test_postings_are_paged_from_the_newest_without_gap_or_repetition(journal):
    for number in range(5):
        with journal.write() as connection:
            record_fills(connection, account="main", trades=[trade(number)], key="k1", now_ms=NOW)
            handlers.drain(connection, POST_LEDGER, now_ms=NOW + number // 2)
    seen, after = [], None
    while True:
        with journal.read() as connection:
            page = reports.postings(connection, limit=2, after=after)
        seen += [line.transaction_id for line in page.lines if line.line == 1]
        after = page.after
        if after is None:
            break
    assert seen == [f"trade:usdm:BTCUSDT:{number}" for number in (4, 3, 2, 1, 0)]


def test_days_are_utc_days_of_the_trade(journal):
    record(journal, [trade(1, time_ms=NOW - 1), trade(2, time_ms=NOW)])
    drain(journal)
    with journal.read() as connection:
        assert [row.day for row in reports.pnl_daily(connection)] == ["2026-11-20", "2026-11-21"]
        assert [row.day for row in reports.pnl_daily(connection, since_day="2026-11-21")] == ["2026-11-21"]


def test_what_stands_here_is_what_others_call():
    assert booking.QUEUE_OF == {"post_ledger": "ledger", "post_pnl": "pnl"}
    assert frozenset(booking.QUEUE_OF) == handlers.KINDS
    assert check.ExchangeSnapshot().venues == frozenset(Venue)
