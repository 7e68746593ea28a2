"""Whose time counts here: the venues on which anything may be traded."""

from app.exchange.exchange_clock import ExchangeClock
from app.job_safety.outcome import Venue
from app.settings import Settings
from app.wiring import Installation, NoExchangeError


def traded_venues(settings: Settings) -> list[Venue]:
    """Return the venues on which anything may be traded."""
    symbols = {Venue.USDM: settings.universe.usdm, Venue.SPOT: settings.universe.spot}
    return [venue for venue in Venue if symbols[venue]]


def own_clock(installation: Installation) -> ExchangeClock | None:
    """Return a clock of the exchange for this process; None if no exchange is named."""
    try:
        return installation.gateway().exchange_clock
    except NoExchangeError:
        return None
