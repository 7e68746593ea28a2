"""What an effect may do to our risk, and how far a gate is switched on."""

from enum import StrEnum


class EffectKind(StrEnum):
    """What an effect may do to our risk, which decides the gates that can stop it."""

    OPEN = "open"
    REDUCE = "reduce"
    CANCEL = "cancel"
    BOOK = "book"
    """Work in our own database, and questions to the exchange: no kill switch and no breaker stops it."""


class GateMode(StrEnum):
    """How far a gate is switched on, for a gradual roll-out. Values stand in configuration files: never rename."""

    OFF = "off"
    """Nothing is counted and nothing is blocked."""
    OBSERVE = "observe"
    """Everything is counted, and what would have been blocked is told (`would_block`); nothing is blocked."""
    ENFORCE = "enforce"
