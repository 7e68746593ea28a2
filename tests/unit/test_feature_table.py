"""The table of features points at what exists: tests, modules, commands; and leaves out no id."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from app.cli.commands_page import page as commands_page

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<id>[ST]\d[\w.]*) \| (?P<what>[^|]+) \| (?P<here>[^|]+) \| (?P<tests>[^|]+) \|$")
TABLE = (ROOT / "docs/reference/features.md").read_text()
ROWS = [found for line in TABLE.splitlines() if (found := ROW.match(line))]

WANTED = {
    *(f"S0.{number}" for number in (*range(4, 9), *range(15, 22))),
    *(f"S2.{number}" for number in (*range(11, 34), 35, *range(59, 80))),
    *(f"S3.{number}" for number in range(43, 59)),
    *(f"T{number}" for number in range(1, 19)),
    *("T3b", "T7d", "T7e"),
}


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the functions of a test module; those of a class as `Class::name`."""
    body = ast.parse((ROOT / path).read_text()).body
    inner = [(f"{group.name}::", node) for group in body if isinstance(group, ast.ClassDef) for node in group.body]
    named = [*(("", node) for node in body), *inner]
    return frozenset(f"{prefix}{node.name}" for prefix, node in named if isinstance(node, ast.FunctionDef))


@cache
def commands() -> frozenset[str]:
    return frozenset(re.findall(r"^## (fillonce[\w -]*)$", commands_page(), flags=re.MULTILINE))


def is_there(name: str) -> bool:
    """Return whether a module, file, command of ours or target of the Makefile has this name."""
    if name.startswith("fillonce "):
        return name in commands()
    if name.startswith("make "):
        return f".PHONY: {name.removeprefix('make ')}\n" in (ROOT / "Makefile").read_text()
    return (ROOT / name).exists()


def test_every_feature_has_a_row() -> None:
    assert {row["id"] for row in ROWS} == WANTED


def test_no_row_is_passed_over_for_its_form() -> None:
    lines = [line for line in TABLE.splitlines() if line.startswith("|") and not line.startswith(("| id |", "| --- |"))]
    assert len(lines) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_what_a_row_names_exists(row: "re.Match[str]") -> None:
    if row["tests"].startswith("not yet: "):
        assert row["here"] == "-" or is_there(row["here"].strip("`"))
        return
    tests = re.findall(r"`([^`]+)`", row["tests"])
    assert tests, "a feature that is there has a test, or says `not yet`"
    for named in tests:
        path, _, function = named.partition("::")
        assert function in functions_of(path), named
    places = re.findall(r"`([^`]+)`", row["here"])
    assert places
    assert [place for place in places if not is_there(place)] == []


def test_the_search_for_places_sees_what_is_not_there() -> None:
    named = ["fillonce circuit list", "make lint", "app/money.py", "fillonce fly", "make coffee", "app/nowhere.py"]
    assert [is_there(name) for name in named] == [True, True, True, False, False, False]
    assert "test_every_feature_has_a_row" in functions_of("tests/unit/test_feature_table.py")
