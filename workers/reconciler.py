"""Settle what is in doubt, follow what rests at the exchange, and sweep its trades. One process is enough.

Several do no harm: every step is a question and a compare-and-set.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from app.composition import compose, open_here
from app.execution import limits
from app.execution.context import ExecutionContext
from app.execution.follow import Spent, follow_symbol, live_symbols, sweep_income, sweep_orders, sweep_trades
from app.execution.order import reconcile_row
from app.execution.reconcile import StepResult
from app.job_safety.errors import RetryableError, StoreUnavailableError
from app.job_safety.outcome import Venue
from app.job_safety.state import DOUBTFUL
from app.journal import intents, watermarks
from app.journal.rows import IntentRow
from workers import alerts, circuit_watch, exporter, kill_mirror, resume, sealer
from workers.identity import new_owner
from workers.loop import Stop
from workers.opener import Opener

TICK_S: Final = 0.25
IDLE_TICK_S: Final = 0.5
"""While nothing is in doubt; far less than the time after which somebody looks after a dispatched order."""
SWEEP_S: Final = 20.0
"""How often trades, income and a HALT of ours are looked at."""
BATCH: Final = 200
FAILED_AGAIN_MS: Final = 60_000


class Reconciler:
    """The three duties, each in its own rhythm."""

    def __init__(self, context: ExecutionContext, *, poll_s: float, weight_share_percent: int) -> None:
        self._context = context
        self._poll_s = poll_s
        self._share = weight_share_percent
        self._next_poll = dict.fromkeys(Venue, 0.0)
        self._next_sweep = 0.0
        self._has_doubts = False

    @property
    def pause_s(self) -> float:
        """How long to wait before the next step."""
        return TICK_S if self._has_doubts else IDLE_TICK_S

    def step(self) -> int:
        """Do what is due; return how many doubts were looked at.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        count = self.settle_doubts()
        now = self._context.clock.monotonic()
        due = [venue for venue in Venue if now >= self._next_poll[venue]]
        live = live_symbols(self._context) if due else {}
        for venue in due:
            mine = {symbol: rows for (where, symbol), rows in live.items() if where is venue}
            self._next_poll[venue] = now + (self._poll(venue, mine) if mine else self._poll_s)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self.sweep()
            resume.release_halt_when_reconciled(self._context)
        return count

    def settle_doubts(self) -> int:
        """Take one step for every order in doubt that is due, venue by venue; return how many were looked at."""
        count = 0
        now_ms = self._context.clock.now_ms()
        with self._context.journal.look() as connection:
            first = intents.venues_in_doubt(connection)
        self._has_doubts = bool(first)
        for venue in Venue:
            due_ms = first.get(venue.value)
            if due_ms is None or due_ms > now_ms or self._is_paused(venue):
                continue
            with self._context.journal.read() as connection:
                rows = intents.doubts_due(connection, venue=venue.value, now_ms=now_ms, limit=BATCH)
            for row in rows:
                text = self._settle(row)
                count += 1
                if text.endswith("works on it"):
                    self._look_later(row.key, 500)
                if text.endswith(StepResult.UNANSWERED.value):
                    break  # the venue does not answer: the others wait, and the other venue has its turn
        return count

    def _settle(self, row: IntentRow) -> str:
        try:
            return reconcile_row(self._context, row)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - one row that cannot be settled must not stop the others
            self._context.record.alarm("reconcile_failed", key=row.key, error=f"{type(error).__name__}: {error}")
            self._look_later(row.key, FAILED_AGAIN_MS)
            return "failed"

    def sweep(self) -> int:
        """Sweep income, and the orders and trades of every symbol that is traded; return how many trades were new."""
        self._try("sweep_income", lambda: sweep_income(self._context), Venue.USDM)
        count = 0
        for venue in Venue:
            self._try("learn_limits", partial(self._learn_limits, venue), venue)
            with self._context.journal.read() as connection:
                marked = watermarks.symbols_of(connection, venue=venue.value)
            for symbol in sorted({*marked, *self._context.symbols.get(venue, ())}):
                count += self._try("sweep_trades", partial(self._sweep_symbol, venue, symbol), venue)
        return count

    def _learn_limits(self, venue: Venue) -> int:
        limits.learn(self._context, venue)
        return 0

    def _sweep_symbol(self, venue: Venue, symbol: str) -> int:
        self._context.hand_over(sweep_orders(self._context, venue, symbol, Spent(weight={})))
        return sweep_trades(self._context, venue, symbol, Spent(weight={}))

    def _poll(self, venue: Venue, live: Mapping[str, Sequence[IntentRow]]) -> float:
        """Follow the live orders of `venue`; return for how long to wait to stay within its share of the weight."""
        spent = Spent(weight={})
        per_second = limits.weight_per_minute(self._context, venue) * self._share / 100 / 60
        for symbol, rows in live.items():
            if spent.weight.get(venue, 0) > per_second * 60:
                break  # the rest has its turn when the minute's share is there again
            follow = partial(follow_symbol, self._context, venue, symbol, rows, spent)
            self._try("follow", lambda follow=follow: self._context.hand_over(follow()), venue)  # type: ignore[misc]  # bound now
        return max(self._poll_s, spent.weight.get(venue, 0) / per_second)

    def _try(self, what: str, work: Callable[[], int], venue: Venue) -> int:
        """Do `work` unless the venue is paused; what fails is told, and the next thing goes on."""
        if self._is_paused(venue):
            return 0
        try:
            return int(work())
        except StoreUnavailableError:
            raise
        except RetryableError as error:
            self._context.record.event("not_answered", level="warning", what=what, error=str(error))
        except Exception as error:  # noqa: BLE001 - one symbol that cannot be booked must not stop the others
            self._context.record.alarm(f"{what}_failed", venue=venue.value, error=f"{type(error).__name__}: {error}")
        return 0

    def _is_paused(self, venue: Venue) -> bool:
        try:
            return self._context.pause.remaining_ms(venue.value) > 0
        except StoreUnavailableError:
            return False  # questions open no risk; the exchange's own answer closes the gate again

    def _look_later(self, key: str, after_ms: int) -> None:
        now_ms = self._context.clock.now_ms()
        with self._context.journal.write() as connection:
            row = intents.load(connection, key, lock=True)
            if row.state in DOUBTFUL:
                intents.touch(connection, row, now_ms=now_ms, run_at_ms=now_ms + after_ms)


def run_reconciler(
    *, owner: str | None = None, once: bool = False, stop: Stop | None = None, with_exporter: bool = False
) -> int:
    """Reconcile until told to stop, or once; return the exit code. `with_exporter`: serve metrics beside it."""
    installation = open_here()
    context = compose(installation, owner or new_owner("reconciler"))
    settings = installation.settings
    reconciler = Reconciler(
        context, poll_s=settings.poll.interval_ms / 1000, weight_share_percent=int(settings.poll.weight_share * 100)
    )
    stop = stop or Stop.on_signals()
    poll_s = settings.sweep.kill_switch_poll_ms / 1000
    kill_mirror.start(stop, context, poll_s=poll_s)
    circuit_watch.start(stop, circuit_watch.CircuitWatch(installation, context), context)
    alerts.start(stop, context, settings.alerts)
    sealer.start(stop, context)
    if with_exporter:
        exporter.start_beside(installation, stop)
    opener = Opener(context)
    while True:
        try:
            opener.step()
            reconciler.step()
            context.record.event("duty_done", level="debug", count=False, duty="reconcile")
        except StoreUnavailableError as error:
            context.record.event("reconcile_failed", level="warning", count=False, error=str(error))
            if once:
                context.record.close()
                return 3
        if once or stop.wait(reconciler.pause_s):
            context.record.close()
            return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the reconciler from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.reconciler", description="Settle what is in doubt.")
    parser.add_argument("--once", action="store_true", help="one pass, then stop")
    return run_reconciler(once=parser.parse_args(arguments).once)


if __name__ == "__main__":
    sys.exit(main())
