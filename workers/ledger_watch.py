"""Compares the wallets of the books with the exchange's every two minutes, and leaves the difference for the exporter.

What is being booked at the moment shows up as a difference that is gone at the next look; the alert waits for several.
Positions and single trades are compared by `fillonce ledger check`, which asks for more.
"""

import threading
import traceback
from collections import defaultdict
from decimal import Decimal
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from app.books import ledger, opening
from app.execution.context import ExecutionContext
from app.job_safety.errors import RetryableError
from app.job_safety.outcome import Venue
from app.money import EXACT, ZERO
from app.observability.ledger_status import LedgerStatus, ledger_key, write_ledger
from workers.loop import Stop

LOOK_S: Final = 120
KEPT_S: Final = 600


class VenueClosedError(RetryableError):
    """Asking now would make a ban longer."""


def compare(context: ExecutionContext) -> dict[str, Decimal]:
    """Return ours less theirs, by asset, over all venues that are open; zero where they agree.

    Raises:
        VenueClosedError: a venue must not be asked now.
        ExchangeQueryError: the exchange did not answer.
        StoreUnavailableError: a store did not answer.
    """
    found: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    for venue in Venue:
        if context.pause.remaining_ms(venue.value) > 0:
            raise VenueClosedError(f"{venue.value} is closed by its limits")
        with context.journal.read() as connection:
            if not opening.is_open(connection, venue):
                continue
        theirs = {one.asset: one.wallet for one in context.gateway.balances(venue) if one.venue is venue}
        with context.journal.read() as connection:
            ours = {
                asset: amount
                for (_, asset), amount in ledger.balances(connection, [ledger.wallet(venue.value)]).items()
            }
        for asset in ours.keys() | theirs.keys():
            difference = EXACT.subtract(ours.get(asset, ZERO), theirs.get(asset, ZERO))
            found[asset] = EXACT.add(found[asset], difference)
    return dict(found)


def look(context: ExecutionContext, redis: Redis) -> None:
    """Compare once, and keep the result; who does not answer is waited for."""
    try:
        differences = compare(context)
        status = LedgerStatus(at_ms=context.clock.now_ms(), differences=differences)
        write_ledger(redis, ledger_key(mode=context.mode, account=context.account), status, ttl_s=KEPT_S)
    except (RetryableError, RedisError) as error:
        context.record.event("ledger_not_compared", level="warning", error=str(error))
        return
    context.record.event("duty_done", level="debug", count=False, duty="ledger")


def start(stop: Stop, context: ExecutionContext, redis: Redis) -> threading.Thread:
    """Look in a thread of its own: it waits for the exchange."""

    def run() -> None:
        while not stop.wait(LOOK_S):
            try:
                look(context, redis)
            except Exception:  # noqa: BLE001 - what is wrong once must not end the watch
                traceback.print_exc()

    thread = threading.Thread(target=run, name="ledger-watch", daemon=True)
    thread.start()
    return thread
