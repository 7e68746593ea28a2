"""In which order tests are run: the longest first, so that no process is left alone with one at the end.

Each of xdist's processes begins with an equal part of the list and takes of the others' ends what they have not come
to. So the longest are dealt out to the beginnings of those parts.
"""

from collections.abc import Sequence

import pytest

LONGEST = (
    "tests/integration/test_docs.py::test_commands_of_the_page_answer_as_it_says",
    "tests/integration/test_rate_limits.py::test_storm_of_twenty_workers",
    "tests/safety/test_killed_at_every_fault_point.py",
    "tests/safety/test_protocol_simulation.py",
    "tests/integration/test_one_hash.py",
    "tests/safety/test_kill_switch_command.py::test_drill_that_is_killed_half_way",
)
"""Beginnings of node ids. A name that fits nothing costs nothing."""


def longest_first(items: Sequence[pytest.Item], *, processes: int) -> list[pytest.Item]:
    """Return all of `items`, with the longest at the beginning of each process's part."""
    groups: dict[str, list[pytest.Item]] = {}
    rest: list[pytest.Item] = []
    for item in items:
        name = next((name for name in LONGEST if item.nodeid.startswith(name)), None)
        if name is None:
            rest.append(item)
        else:
            groups.setdefault(_group(name, item), []).append(item)
    longest = [groups[name] for name in sorted(groups, key=_rank)]
    ordered: list[pytest.Item] = []
    for number in range(processes):
        mine = [item for group in longest[number::processes] for item in group]
        # As xdist deals them out.
        size = (len(items) - len(ordered)) // (processes - number)
        more = max(size - len(mine), 0)
        ordered += [*mine, *rest[:more]]
        del rest[:more]
    return [*ordered, *rest]


def _group(name: str, item: pytest.Item) -> str:
    """Return what is to be run by one process: a test, or all of a file that share one database of its fixture."""
    if "::" in name:
        return item.nodeid
    return f"{name}[{'postgres' if 'postgres' in item.name else 'sqlite'}]"


def _rank(group: str) -> int:
    return next(number for number, name in enumerate(LONGEST) if group.startswith(name))
