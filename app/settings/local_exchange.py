"""The local exchange that `fillonce up` runs, for settings that name none."""

import json
from typing import Final

from app.settings.mode import TradingMode
from app.settings.model import Settings

LOCAL_EXCHANGE_FILE: Final = "local-exchange.json"
"""Where `fillonce up` leaves its addresses, in the home folder."""

PAPER_KEY: Final = "paper"
PAPER_SECRET: Final = "paper-secret"  # noqa: S105 - of an exchange of play money on this machine


def with_local_exchange(settings: Settings) -> Settings:
    """Return settings that name the local exchange which `fillonce up` runs in this home, if they name none."""
    if settings.exchange.futures_url is not None or settings.mode not in {TradingMode.PAPER, TradingMode.DRY_RUN}:
        return settings
    try:
        told = json.loads((settings.stores.home / LOCAL_EXCHANGE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings
    return settings.with_exchange(
        futures_url=told["futures_url"],
        spot_url=told["spot_url"],
        api_key=told["api_key"],
        api_secret=told["api_secret"],
    )
