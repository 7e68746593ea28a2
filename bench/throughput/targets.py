"""What we hold ourselves to, and whether the results hold it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.throughput.results import Results

HEAD: Final = ("", "what", "target", "measured", "holds")
RATIOS: Final = (
    ("g1", "a1", 1.5), ("h1", "a1", 1.4), ("g2", "a2", 1.4), ("h2", "a2", 1.6), ("g1", "c1", 1.0),
)  # fmt: skip
LEAST_RATIO: Final = 1.2
"""In every round with one worker, to (a)."""

ROUND_TRIPS: Final = 2
COMMITS: Final = 2
DELAY_RATIO: Final = 1.2
DELAY_P99_MS: Final = 15
BATCH_PER_S: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A limit, and what was measured against it."""

    letter: str
    what: str
    limit: float
    measured: float
    is_least: bool = True
    """Whether the limit is a floor; else it is a ceiling."""

    @property
    def holds(self) -> bool:
        """Whether it is held."""
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit

    def cells(self) -> list[str]:
        """Return the row of the table."""
        sign = "≥" if self.is_least else "≤"
        measured = f"{self.measured:,.0f}" if self.measured >= 100 else f"{self.measured:.2f}"
        return [self.letter, self.what, f"{sign} {self.limit:,}", measured, "yes" if self.holds else "no"]


def targets(results: Results) -> list[Target]:
    """Return every target for which something was measured."""
    return [*_ratios(results), *_counts(results), *_delays(results), *_enqueued(results)]


def _ratios(results: Results) -> Iterator[Target]:
    for name, to, limit in RATIOS:
        found = results.ratio(name, to)
        if found is None:
            continue
        workers = "one worker" if name.endswith("1") else "two workers"
        yield Target(letter=name[0], what=f"{workers}, x ({to[0]})", limit=limit, measured=found.median)
        if to == "a1":
            yield Target(letter=name[0], what=f"{workers}, worst round", limit=LEAST_RATIO, measured=found.least)


def _counts(results: Results) -> Iterator[Target]:
    for name in ("g1", "h1"):
        trips = results.median(name, "reads_per_job")
        if trips is not None:
            # What goes to the metrics once in a while comes on top, and is no part of an order.
            measured = float(round(trips))
            yield Target(letter=name[0], what="round trips", limit=ROUND_TRIPS, measured=measured, is_least=False)
        commits = results.commits_per_job.get(name)
        if commits is not None:
            yield Target(letter=name[0], what="commits", limit=COMMITS, measured=commits, is_least=False)


def _delays(results: Results) -> Iterator[Target]:
    for name in ("g1", "h1"):
        for per_s in (20, 100):
            ours, stock = results.delay_ms(name, per_s, 50), results.delay_ms("a1", per_s, 50)
            if ours is not None and stock is not None:
                what = f"to the exchange, {per_s}/s, p50 x (a)"
                yield Target(letter=name[0], what=what, limit=DELAY_RATIO, measured=ours / stock, is_least=False)
        p99 = results.delay_ms(name, 100, 99)
        if p99 is not None:
            what = "to the exchange, 100/s, p99 ms"
            yield Target(letter=name[0], what=what, limit=DELAY_P99_MS, measured=p99, is_least=False)


def _enqueued(results: Results) -> Iterator[Target]:
    for name in ("g0", "h0"):
        rate = results.batch_per_s(name)
        if rate is not None:
            yield Target(letter=name[0], what="enqueued a second, in batches", limit=BATCH_PER_S, measured=rate)
