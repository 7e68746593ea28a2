"""The tables of the results."""

from collections.abc import Sequence
from typing import Final

from bench.throughput import targets
from bench.throughput.plan import FAR_MS, Entry, Kind
from bench.throughput.results import Results, Spread, spread

Table = tuple[str, tuple[str, ...], list[list[str]]]
"""A title, a head, and rows."""

ONE_HEAD: Final = (
    "", "queue", "jobs/s", "x (a)", "x (c)", "CPU ms of the worker", "CPU ms of Redis, PostgreSQL",
    "Redis commands", "round trips", "commits", "booked, orders/s",
)  # fmt: skip
FAR_HEAD: Final = ("", "queue", "jobs/s", "x (a)", "x (c)")
TWO_HEAD: Final = ("", "queue", "jobs/s", "x (a)", "x (c)", "CPU ms of the workers")
DELAY_HEAD: Final = ("", "queue", "20/s p50", "p99", "of it the call, p50", "100/s p50", "p99")
ENQUEUE_HEAD: Final = ("", "queue", "one by one", "in batches")


def tables(entries: Sequence[Entry], results: Results) -> list[Table]:
    """Return every table that has something to show."""
    kinds = {entry.kind.letter: entry.kind for entry in entries}
    every = [kinds[letter] for letter in sorted(kinds)]
    made = [
        ("What we hold ourselves to", targets.HEAD, [one.cells() for one in targets.targets(results)]),
        (
            "One worker process", ONE_HEAD,
            [_one(kind, results) for kind in every if any(results.runs.get(f"{kind.letter}1", []))],
        ),
        (
            f"One worker process, of an exchange that answers after {FAR_MS} ms", FAR_HEAD,
            [_first(kind, results, "1-far") for kind in every if any(results.runs.get(f"{kind.letter}1-far", []))],
        ),
        (
            "Two worker processes", TWO_HEAD,
            [_two(kind, results) for kind in every if any(results.runs.get(f"{kind.letter}2", []))],
        ),
        (
            "From enqueue to the request at the exchange, ms, on an idle system", DELAY_HEAD,
            [_delay(kind, results) for kind in every if results.delays.get(f"{kind.letter}1")],
        ),
        (
            "Enqueued a second", ENQUEUE_HEAD,
            [_enqueue(kind, results) for kind in every if results.enqueued.get(f"{kind.letter}0")],
        ),
    ]  # fmt: skip
    return [table for table in made if table[2]]


def _one(kind: Kind, results: Results) -> list[str]:
    name = f"{kind.letter}1"
    booked = spread(results.booked_per_s.get(f"{name}-booked", []))
    return [
        *_first(kind, results, "1"),
        _number(results.median(name, "cpu_ms_per_job"), 2),
        _number(results.median(name, "server_cpu_ms_per_job"), 2),
        _number(results.median(name, "commands_per_job"), 1),
        _number(results.median(name, "reads_per_job"), 1),
        _number(results.commits_per_job.get(name), 1),
        _number(booked.median if booked else None, 0),
    ]


def _two(kind: Kind, results: Results) -> list[str]:
    name = f"{kind.letter}2"
    return [*_first(kind, results, "2"), _number(results.median(name, "cpu_ms_per_job"), 2)]


def _first(kind: Kind, results: Results, how: str) -> list[str]:
    name = f"{kind.letter}{how}"
    return [
        kind.letter, kind.name, _number(results.median(name, "jobs_per_s"), 0),
        _ratio(results.ratio(name, f"a{how}")), _ratio(results.ratio(name, f"c{how}")),
    ]  # fmt: skip


def _delay(kind: Kind, results: Results) -> list[str]:
    name = f"{kind.letter}1"
    shown = [results.delay_ms(name, per_s, percent) for per_s in (20, 100) for percent in (50, 99)]
    shown.insert(2, results.call_ms(name, 20))
    return [kind.letter, kind.name, *(_number(one, 1) for one in shown)]


def _enqueue(kind: Kind, results: Results) -> list[str]:
    name = f"{kind.letter}0"
    rates = (results.singly_per_s(name), results.batch_per_s(name))
    return [kind.letter, kind.name, *("-" if rate is None else f"{rate:,.0f}" for rate in rates)]


def _ratio(found: Spread | None) -> str:
    return "-" if found is None else str(found)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
