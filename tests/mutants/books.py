"""What is written together, and what is booked once."""

from typing import Final

from tests.mutants.mutant import SCRIPTS, Edit, Mutant

DISPATCH: Final = "app/execution/dispatch.py"
FILLS: Final = "app/execution/fills.py"
FOLLOW: Final = "app/execution/follow.py"
SWEPT: Final = "app/execution/swept.py"
SCHEMA: Final = "app/journal/schema.py"
BOOKING: Final = "app/books/booking.py"
BOOK_TESTS: Final = "tests/integration/test_books.py"

MUTANTS: Final = (
    Mutant(
        name="followups_outside_the_transaction",
        breaks="what must still be done is written after the outcome, in a transaction of its own",
        harm="a worker killed in between leaves a filled order whose fills nobody fetches",
        expected="asked_for_in_the_transaction",
        edits=(
            Edit(
                file="app/execution/adopt.py",
                old="    ask = _question_of_fills(row, order, now_ms=now_ms)\n",
                new='    ask = _question_of_fills(row, order, now_ms=now_ms) if source != "dispatch" else None\n',
            ),
            Edit(
                file=DISPATCH,
                old="    context.faults.hit(FaultPoint.AFTER_SETTLE_COMMIT)\n",
                new="    context.faults.hit(FaultPoint.AFTER_SETTLE_COMMIT)\n"
                '    if type(outcome).__name__ == "Accepted":\n'
                "        from app.execution.adopt import _question_of_fills\n"
                "        from app.journal import followups\n\n"
                "        now_ms = context.clock.now_ms()\n"
                "        ask = _question_of_fills(settled.row, outcome.order, now_ms=now_ms)\n"
                "        with context.journal.write() as connection:\n"
                "            followups.add(connection, ask, now_ms=now_ms)\n",
            ),
        ),
    ),
    Mutant(
        name="done_before_the_effect",
        breaks="a follow-up is marked done in a transaction before the one that books the trades",
        harm="a worker killed in between loses the fills of an order",
        expected="only_if_its_trades_are_booked",
        edits=(
            Edit(
                file=FILLS,
                old="    with context.journal.write() as connection:\n        new = context.books",
                new="    with context.journal.write() as connection:\n"
                "        followups.finish(connection, followup.key, now_ms=now_ms)\n"
                "    with context.journal.write() as connection:\n        new = context.books",
            ),
        ),
    ),
    Mutant(
        name="trade_id_not_unique",
        breaks="the database takes the same trade twice",
        harm="whatever tells of a trade a second time books it a second time",
        expected="told_twice",
        edits=(
            Edit(
                file=SCHEMA,
                old='    Column("recorded_at_ms", Millis, nullable=False),\n    Index("fills_by_key"',
                new='    Column("recorded_at_ms", Millis, primary_key=True),\n    Index("fills_by_key"',
            ),
            Edit(
                file="app/journal/migrations/versions/0001_first.py",
                old='"symbol", "trade_id"),\n    )\n    op.create_index("fills_by_key"',
                new='"symbol", "trade_id", "recorded_at_ms"),\n    )\n    op.create_index("fills_by_key"',
            ),
        ),
        tests=(*SCRIPTS, BOOK_TESTS),
    ),
    Mutant(
        name="position_moves_for_every_telling",
        breaks="a trade moves the position each time it is told, not only when it is new",
        harm="positions that do not exist, and hedges against them",
        expected="told_twice",
        edits=(
            Edit(
                file=BOOKING,
                old="for (trade_id,) in sorted(inserted) if trade_id > mark]",
                new="for trade_id in sorted(distinct) if trade_id > mark]",
            ),
        ),
        tests=(*SCRIPTS, BOOK_TESTS),
    ),
    Mutant(
        name="watermark_before_booking",
        breaks="the sweep marks trades as seen before they are booked",
        harm="a reconciler killed in between never looks at them again",
        expected="sweep_that_died",
        edits=(
            Edit(
                file=FOLLOW,
                old="    by_order: dict[int, list[ExchangeTrade]] = defaultdict(list)\n",
                new="    with context.journal.write() as connection:\n"
                "        last_id = max(one.trade_id for one in trades)\n"
                "        watermarks.advance(connection, venue=venue.value, symbol=symbol, trade_id=last_id)\n"
                "    by_order: dict[int, list[ExchangeTrade]] = defaultdict(list)\n",
            ),
        ),
    ),
    Mutant(
        name="unshown_owner_is_nobody",
        breaks="a trade whose order is not shown yet is booked as somebody else's",
        harm="our own fill ends in the account external, and our order stays closed",
        expected="not_shown_yet",
        edits=(
            Edit(file=FOLLOW, old="if isinstance(asked, OrderAbsent) and _is_young(", new="if not asked and bool("),
        ),
    ),
    Mutant(
        name="asks_once_for_the_end",
        breaks="a sweep asks for a finished order's end only when it books its late trades, not when they are booked",
        harm="a sweep that is killed in between leaves an order whose executed quantity is not what it traded",
        expected="asks_the_next_time",
        edits=(
            Edit(
                file=SWEPT,
                old="        if owner.state not in LIVE and booked[owner.key].quantity >",
                new="        if owner.state not in LIVE and booked[owner.key].new and booked[owner.key].quantity >",
            ),
        ),
    ),
    Mutant(
        name="partial_fills_are_enough",
        breaks="an order's fills count as fetched when one of its trades is there",
        harm="trades become visible one by one: the rest is never booked",
        expected="until_all_of_its_trades",
        edits=(
            Edit(
                file=FILLS,
                old="is_complete = total(trade.quantity for trade in trades) >= executed",
                new="is_complete = bool(trades)",
            ),
        ),
        tests=SCRIPTS,
    ),
)
