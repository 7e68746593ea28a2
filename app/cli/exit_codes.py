"""What the command line answers to the shell. Partial failure is failure."""

from typing import Final

DONE: Final = 0
"""All of it is done."""

FAILED: Final = 1
"""It was tried and did not succeed, or time ran out."""

USAGE: Final = 2
"""Wrong usage, wrong settings, or an intent that cannot be taken."""

UNAVAILABLE: Final = 3
"""A store or the exchange cannot be reached now. Trying again is safe."""

IN_DOUBT: Final = 4
"""Something waits for a person's verdict."""

INTERRUPTED: Final = 130
"""Ctrl-C: 128 + SIGINT, as shells have it."""
