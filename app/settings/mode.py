"""The hard mode switch: what may leave this machine."""

from enum import StrEnum


class TradingMode(StrEnum):
    """Where orders go. The journal is stamped with it, and refuses another."""

    DRY_RUN = "dry_run"
    """Nothing is sent to any exchange."""

    PAPER = "paper"
    """Orders go to our own exchange on this machine."""

    TESTNET = "testnet"
    """Orders go to Binance's testnet."""

    LIVE = "live"
    """Real money. Refused until permits and gates exist."""
