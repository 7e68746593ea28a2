"""The order in which tests are run."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.order import LONGEST, longest_first


def named(*names: str) -> list[Any]:
    return [SimpleNamespace(nodeid=name, name=name.rpartition("::")[2]) for name in names]


@pytest.mark.parametrize("count", [0, 1, 5, 30])
@pytest.mark.parametrize("processes", [1, 2, 4, 7])
def test_every_test_is_run_once_whatever_is_long(count: int, processes: int) -> None:
    items = named(
        *(f"tests/x.py::test_{n}" for n in range(count)), *(f"{name}::t[{n}]" for name in LONGEST for n in "ab")
    )
    ordered = longest_first(items, processes=processes)
    assert sorted(item.nodeid for item in ordered) == sorted(item.nodeid for item in items)


def test_longest_stand_at_the_beginning_of_each_process_s_part() -> None:
    short = [f"tests/x.py::test_{n}" for n in range(16)]
    items = named(*short[:10], *LONGEST[:2], *short[10:], *(f"{LONGEST[2]}::{name}" for name in ("a", "b")))
    ordered = [item.nodeid for item in longest_first(items, processes=2)]
    assert ordered[:3] == [LONGEST[0], f"{LONGEST[2]}::a", f"{LONGEST[2]}::b"]
    assert ordered[10] == LONGEST[1]
    assert [name for name in ordered if name in short] == short
