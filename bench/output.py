"""Where results go: JSON into bench/results/ (not in git), and a table into a page, between two marks of its own."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
EXPLANATION: Final = ROOT / "docs" / "explanation"
PAGE: Final = EXPLANATION / "peers.md"


def write_json(name: str, result: Mapping[str, object]) -> Path:
    """Write a result beside those of earlier runs; return where."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    return path


def write_page(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace what stands between the marks of `name` in the page.

    Raises:
        ValueError: the page has no such marks; it is left as it is.
    """
    begin, end = f"<!-- {name}: begin, written by its command -->", f"<!-- {name}: end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    old, _, after = rest.partition(end)
    if not old:
        raise ValueError(f"{page.name} has no place for {name}")
    page.write_text("\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"]), encoding="utf-8")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [f"| {' | '.join(one)} |" for one in (head, ["---"] * len(head), *rows)]


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table for the terminal."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
