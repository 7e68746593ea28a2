"""What import-linter's contracts cannot say: that they name every module, and who alone may know a library."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")))


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _users_of(library: str) -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name.split(".")[0] == library for name in _imports(path.read_text()))
    ]


def test_every_part_of_app_stands_in_exactly_one_layer() -> None:
    """A module that no layer names may import anything, and nobody notices."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = sorted(part.strip(" ()") for layer in layers for part in layer.split("|"))
    modules = {
        f"app.{path.stem}"
        for path in (ROOT / "app").iterdir()
        # `python -m app` is the command line under its other name.
        if (path.suffix == ".py" or any(path.glob("**/*.py"))) and path.stem not in {"__init__", "__main__"}
    }
    assert len(named) == len(set(named))
    assert modules - set(named) == set()


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        pytest.param("rq", ("app/delivery", "workers/"), id="rq, which only delivers keys"),
        pytest.param("binance", ("app/exchange/",), id="python-binance, which has one caller"),
    ],
)
def test_only_its_home_knows(library: str, homes: tuple[str, ...]) -> None:
    strangers = [user for user in _users_of(library) if not user.startswith(homes)]
    assert strangers == []


def test_the_search_for_imports_sees_every_form() -> None:
    """Else the test above would pass by being blind."""
    source = "import rq.job\ndef late():\n    from rq import Queue\n    import rq as queue\n"
    assert list(_imports(source)) == ["rq.job", "rq", "rq"]
