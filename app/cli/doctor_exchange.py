"""Does the exchange answer, and how far is this machine's clock from its own?"""

from collections.abc import Iterator
from typing import Final

from app.cli.findings import Finding, Level, fail, ok, unreachable, warn
from app.clock import Clock
from app.exchange.errors import ExchangeQueryError
from app.exchange.gateway import ExchangeGateway
from app.job_safety.outcome import Venue

OFFSET_WARN_MS: Final = 500
"""Timestamps are pinned by the exchange's clock, so that an offset is harmless; it makes logs hard to read."""


def look(gateway: ExchangeGateway, clock: Clock) -> Iterator[Finding]:
    """Yield what is to be said of each venue."""
    for venue in Venue:
        found = _clock(gateway, clock, venue)
        yield found
        if found.level is not Level.FAIL:
            yield _credentials(gateway, venue)


def _credentials(gateway: ExchangeGateway, venue: Venue) -> Finding:
    name = f"credentials {venue.value}"
    try:
        gateway.balances(venue)
    except ExchangeQueryError as error:
        return fail(name, str(error), "check BINANCE_API_KEY and BINANCE_API_SECRET, and what the key may do")
    return ok(name, "a signed question is answered")


def _clock(gateway: ExchangeGateway, clock: Clock, venue: Venue) -> Finding:
    name = f"exchange {venue.value}"
    try:
        answer = gateway.server_time(venue)
    except ExchangeQueryError as error:
        return unreachable(name, str(error), "check its URL, the network, and the exchange's status page")
    took_ms = round((answer.received_monotonic - answer.sent_monotonic) * 1000)
    offset_ms = clock.now_ms() - took_ms // 2 - answer.server_time_ms
    side = "behind" if offset_ms < 0 else "ahead"
    words = f"answers in {took_ms} ms, our clock is {abs(offset_ms)} ms {side}"
    if abs(offset_ms) > OFFSET_WARN_MS:
        return warn(name, words, "synchronize this machine's clock (chrony, systemd-timesyncd)")
    return ok(name, words)
