"""Runs the plan: everybody started, then rounds in which each is measured in turn, until the time is used."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.postgres import PostgresServer
from bench.throughput import facts
from bench.throughput.contestants import Contestant
from bench.throughput.plan import Entry, Sizes, may_begin
from bench.throughput.results import Results

DELAYED = frozenset({"a1", "g1", "h1"})
"""Whose delays are measured: ours, and what it is compared with."""


def measure(entries: Sequence[Entry], sizes: Sizes, home: Path, *, rounds: int, until_s: float) -> Results:
    """Return what was measured. Whoever fails is left out from then on, and named.

    Args:
        entries: Who is measured, in this order in each round.
        sizes: How much is done in a round.
        home: A folder for everybody's data.
        rounds: How many at most.
        until_s: When everything should be over, by the monotonic clock: nothing begins later, and no round of which
            it is likely that it would end later, but for the first.
    """
    results = Results()
    with ExitStack() as stack:
        server = None
        if any(entry.kind.database == "PostgreSQL" for entry in entries):
            server = PostgresServer()
            stack.callback(server.stop)
        everybody = [Contestant(entry, home / entry.name, server) for entry in entries]
        for one in everybody:
            stack.callback(one.stop)
        for one in everybody:
            if time.monotonic() < until_s:
                _try(results, one, "", one.start)
                _try(results, one, " commits", partial(_count, results, one, sizes))
        results.facts |= facts.synced_writes(home)
        results.facts["stores"] = facts.stores(next((one.endpoint for one in everybody), None), server)
        took_s: list[float] = []
        while len(took_s) < rounds and may_begin(now_s=time.monotonic(), until_s=until_s, rounds_s=took_s):
            began_s = time.monotonic()
            for one in everybody:
                if time.monotonic() < until_s:
                    _try(results, one, "", partial(_round, results, one, sizes))
                results.close_round(one.entry.name, len(took_s) + 1)
            took_s.append(time.monotonic() - began_s)
            sys.stderr.write(f"round {len(took_s)}: {took_s[-1]:.0f} s\n")
    return results


def _try(results: Results, one: Contestant, part: str, step: Callable[[], None]) -> None:
    """Take a step. One that fails is the last of its contestant, unless it is a part that nothing else rests on."""
    name = f"{one.entry.name}{part}"
    if one.entry.name not in results.failed:
        try:
            step()
            one.rest()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are measured, and it is shown at the end
            results.failed[name] = f"{type(error).__name__}: {error}"
            sys.stderr.write(f"{name} failed: {results.failed[name]}\n")


def _count(results: Results, one: Contestant, sizes: Sizes) -> None:
    if one.entry.workers == 1 and not one.entry.books:
        found = one.count_commits(sizes.counted)
        if found is not None:
            results.commits_per_job[one.entry.name] = found


def _round(results: Results, one: Contestant, sizes: Sizes) -> None:
    name = one.entry.name
    if not one.entry.workers:
        results.enqueued.setdefault(name, []).append(one.measure_enqueue(sizes.singly, sizes.batch))
        return
    if one.entry.books:
        results.booked_per_s.setdefault(name, []).append(one.measure_booked(sizes.booked))
        return
    results.runs.setdefault(name, []).append(one.measure(round(sizes.jobs * one.entry.kind.share)))
    if name in DELAYED:
        for per_s, count in sizes.paced:
            results.delays.setdefault(name, {}).setdefault(per_s, []).append(one.measure_delays(count, per_s))
