"""Settle what is in doubt, follow what rests at the exchange, and sweep its trades. One process is enough.

Several do no harm: every step is a question and a compare-and-set.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from app.composition import compose, open_here
from app.exchange.errors import ExchangeClockUnknownError, ExchangeQueryError
from app.execution import opening
from app.execution.context import ExecutionContext
from app.execution.follow import Spent, follow_symbol, live_symbols, sweep_income, sweep_trades
from app.execution.order import reconcile_row
from app.job_safety.errors import RetryableError, StoreUnavailableError
from app.job_safety.outcome import Venue
from app.job_safety.state import DOUBTFUL
from app.journal import intents, watermarks
from workers import resume
from workers.identity import new_owner
from workers.loop import Stop

TICK_S: Final = 0.25
SWEEP_S: Final = 20.0
"""How often trades, income and a HALT of ours are looked at."""
BATCH: Final = 200
WEIGHT_LIMIT: Final = {Venue.USDM: 2_400, Venue.SPOT: 6_000}
"""Request weight per minute (BINANCE.md section 5), used until the exchange's own limits are known."""


class Reconciler:
    """The three duties, each in its own rhythm."""

    def __init__(self, context: ExecutionContext, *, poll_s: float, weight_share_percent: int) -> None:
        self._context = context
        self._poll_s = poll_s
        self._share = weight_share_percent
        self._next_poll = dict.fromkeys(Venue, 0.0)
        self._next_sweep = 0.0

    def step(self) -> int:
        """Do what is due; return how many doubts were looked at.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        count = self.settle_doubts()
        now = self._context.clock.monotonic()
        for venue in Venue:
            if now >= self._next_poll[venue]:
                self._next_poll[venue] = now + self._poll(venue)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self.sweep_trades()
            resume.release_halt_when_reconciled(self._context)
        return count

    def settle_doubts(self) -> int:
        """Take one step for every intent in doubt that is due."""
        context = self._context
        now_ms = context.clock.now_ms()
        with context.journal.read() as connection:
            rows = intents.due_in_states(connection, sorted(DOUBTFUL), now_ms=now_ms, limit=BATCH)
        for row in (row for row in rows if row.type == "order"):
            if row.venue is not None and self._is_paused(row.venue):
                continue
            text = reconcile_row(context, row)
            if text.endswith("works on it"):
                self._look_later(row.key)
        return len(rows)

    def sweep_trades(self) -> int:
        """Sweep income, and the trades of every symbol that has a watermark."""
        count = 0
        if not self._is_paused(Venue.USDM):
            try:
                sweep_income(self._context)
            except ExchangeQueryError as error:
                self._unanswered("sweep_income", error)
        for venue in Venue:
            with self._context.journal.read() as connection:
                symbols = watermarks.symbols_of(connection, venue=venue.value)
            if self._is_paused(venue):
                continue
            for symbol in symbols:
                try:
                    count += sweep_trades(self._context, venue, symbol, Spent(weight={}))
                except ExchangeQueryError as error:
                    self._unanswered("sweep_trades", error)
        return count

    def _poll(self, venue: Venue) -> float:
        """Follow the live orders of `venue`; return for how long to wait to stay within its share of the weight."""
        spent = Spent(weight={})
        for (where, symbol), rows in live_symbols(self._context).items():
            if where is not venue or self._is_paused(venue):
                continue
            try:
                self._context.hand_over(follow_symbol(self._context, venue, symbol, rows, spent))
            except ExchangeQueryError as error:
                self._unanswered("follow", error)
        per_second = WEIGHT_LIMIT[venue] * self._share / 100 / 60
        return max(self._poll_s, spent.weight.get(venue, 0) / per_second)

    def _is_paused(self, venue: Venue) -> bool:
        try:
            return self._context.pause.remaining_ms(venue.value) > 0
        except StoreUnavailableError:
            return False  # questions open no risk; the exchange's own answer closes the gate again

    def _look_later(self, key: str) -> None:
        now_ms = self._context.clock.now_ms()
        with self._context.journal.write() as connection:
            row = intents.load(connection, key, lock=True)
            if row.state in DOUBTFUL:
                intents.touch(connection, row, now_ms=now_ms, run_at_ms=now_ms + 500)

    def _unanswered(self, what: str, error: RetryableError) -> None:
        self._context.record.event("not_answered", level="warning", what=what, error=str(error))


def open_venues(context: ExecutionContext) -> None:
    """Book the opening entries of every venue that answers, so that the first order need not wait for it."""
    for venue in Venue:
        try:
            opening.ensure_open(context, venue)
        except (ExchangeQueryError, ExchangeClockUnknownError, opening.AccountMovesError) as error:
            context.record.event("venue_not_opened", level="warning", venue=venue.value, error=str(error))


def run_reconciler(*, owner: str | None = None, once: bool = False, stop: Stop | None = None) -> int:
    """Reconcile until told to stop, or once; return the exit code."""
    installation = open_here()
    context = compose(installation, owner or new_owner("reconciler"))
    settings = installation.settings
    reconciler = Reconciler(
        context, poll_s=settings.poll.interval_ms / 1000, weight_share_percent=int(settings.poll.weight_share * 100)
    )
    stop = stop or Stop.on_signals()
    has_opened = False
    while True:
        try:
            if not has_opened:
                open_venues(context)
                has_opened = True
            reconciler.step()
        except StoreUnavailableError as error:
            context.record.event("reconcile_failed", level="warning", count=False, error=str(error))
            if once:
                return 3
        if once or stop.wait(TICK_S):
            return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the reconciler from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.reconciler", description="Settle what is in doubt.")
    parser.add_argument("--once", action="store_true", help="one pass, then stop")
    return run_reconciler(once=parser.parse_args(arguments).once)


if __name__ == "__main__":
    sys.exit(main())
