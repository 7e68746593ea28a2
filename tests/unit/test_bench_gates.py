"""What the bench of the gates tells of what it measured."""

import pytest

from bench import gates
from bench.gates import Taken


@pytest.mark.parametrize(("slow_ms", "holds"), [(1.0, "yes"), (1.001, "no")])
def test_limit_is_held_if_all_but_one_order_in_a_hundred_hold_it(slow_ms: float, holds: str) -> None:
    wall = [0.0002] * 98 + [slow_ms / 1000, 0.5]
    taken = Taken(wall=wall, cpu=[0.0001], metrics=[0.00005], line=[0.0001], in_redis=[0.0001], chance=[0.0])
    first, *others = gates.rows(taken)
    assert first == ["guard, breaker and metrics together", "0.200", f"{slow_ms:.3f}", "1", holds]
    assert all(len(row) == len(gates.HEAD) for row in others)


def test_page_has_a_place_for_the_table() -> None:
    page = gates.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- gates: begin, written by its command -->") == 1
    assert page.count("<!-- gates: end -->") == 1
