"""Typed settings from config/*.yaml and the environment; their hash; their sanity.

Entry points load them once and pass plain values on; nothing further in reads the environment.
"""

from app.settings.effective import Described, config_hash, describe, short_hash
from app.settings.errors import SettingsError
from app.settings.load import child_environment, home_from, load_settings
from app.settings.local_exchange import LOCAL_EXCHANGE_FILE, PAPER_KEY, PAPER_SECRET, with_local_exchange
from app.settings.mode import TradingMode
from app.settings.model import MOST_THREADS, Settings
from app.settings.sanity import Problem, check, opening_read_lag_ms
from app.settings.secret import Secret, StoreUrl

__all__ = [
    "LOCAL_EXCHANGE_FILE",
    "MOST_THREADS",
    "PAPER_KEY",
    "PAPER_SECRET",
    "Described",
    "Problem",
    "Secret",
    "Settings",
    "SettingsError",
    "StoreUrl",
    "TradingMode",
    "check",
    "child_environment",
    "config_hash",
    "describe",
    "home_from",
    "load_settings",
    "opening_read_lag_ms",
    "short_hash",
    "with_local_exchange",
]
