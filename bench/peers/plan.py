"""The workload and the kills, the same for everybody, and what is found at the end."""

import math
import random
from dataclasses import dataclass
from typing import Final, Protocol

from bench.percentile import percentile

PACE_S: Final = 0.1
"""Between two orders: far below what two workers of any peer can do, so that nobody's queue grows."""

WORKERS: Final = 2
"""Worker processes for the orders, for everybody."""

LATENCY_MS: Final = 30
"""From the execution of an order at the exchange to its answer: a venue across a network."""

WAIT_S: Final = 90
"""How long after the last kill a killed job may take to go on. What takes longer counts as stuck."""

QUIET_S: Final = 15
"""Nor is anybody stopped who has finished an order within this time: slow is not stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done to each."""

    orders: int
    kills: int
    seed: int

    @property
    def kill_at(self) -> frozenset[int]:
        """Whose workers are killed, by the number of orders sent before: one in each of equal parts of the first half.

        In the second half nobody is killed, so that everybody has the time and the traffic to recover.
        """
        chance = random.Random(self.seed)
        part = self.orders // (2 * self.kills) if self.kills else 0
        return frozenset(part * number + chance.randint(1, part) for number in range(self.kills))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of the orders. Times in seconds; infinite: not within the wait."""

    name: str
    settings: str
    killed: str
    orders: int
    kills: int
    duplicates: int
    lost: int
    stuck: int
    goes_on_s: tuple[float, ...]
    seconds: int
    note: str = ""

    def cells(self) -> list[str]:
        """Return the row of the table."""
        p50, longest = percentile(self.goes_on_s, 50), max(self.goes_on_s, default=math.nan)
        counts = (self.kills, self.duplicates, self.lost, self.stuck)
        return [self.name, self.settings, self.killed, *map(str, counts), _seconds(p50), _seconds(longest)]


HEAD: Final = ("queue", "settings", "what is killed", "kills", "duplicates", "lost", "stuck", "goes on p50", "max")


def _seconds(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"> {WAIT_S} s" if math.isinf(value) else f"{value:.2f} s"


class Contestant(Protocol):
    """One queue under test."""

    def start(self) -> None:
        """Start everything and wait until an order has gone through."""

    def submit(self, number: int) -> None:
        """Enqueue one order."""

    def tend(self) -> None:
        """Do what a process manager does: start again what has died."""

    def killed_count(self) -> int:
        """Return how many workers have been killed. Kills are the contestant's own: they strike on the wire."""
        ...

    def finished_count(self) -> int:
        """Return how many orders have gone through to their end."""
        ...

    def measure(self, seconds: int) -> Row:
        """Count."""
        ...

    def stop(self) -> None:
        """End everything that was started."""
