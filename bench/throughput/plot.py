"""Draws the plots: `python -m bench.throughput.plot RESULT.json FOLDER`, in the peers' environment."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl  # type: ignore[import-not-found]  # not among the project's requirements

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES: Final = {
    "a": "RQ SimpleWorker", "b": "RQ Worker", "c": "Celery", "d": "Huey", "e": "RQ + Powertools", "f": "DBOS",
    "g": "fillonce, SQLite", "h": "fillonce, PostgreSQL", "i": "fillonce, SQLite, one thread",
    "j": "fillonce, PostgreSQL, one thread",
}  # fmt: skip
OURS: Final = "ghij"
DPI: Final = 110


def main(result: Path, folder: Path) -> None:
    """Write one PNG for the ratios and one for the delays, as far as they were measured."""
    told = json.loads(result.read_text(encoding="utf-8"))["results"]
    folder.mkdir(parents=True, exist_ok=True)
    if any(told["runs"].values()):
        _ratios(told["runs"], folder / "bench-ratios.png")
    if told["delays"]:
        _delays(told["delays"], folder / "bench-delays.png")


def _ratios(runs: dict[str, list[Any]], path: Path) -> None:
    shown = [workers for workers in "12" if f"a{workers}" in runs]
    figure, axes = plt.subplots(
        1, max(len(shown), 1), figsize=(9, 3.2), squeeze=False, sharex=True, layout="constrained"
    )
    for axis, workers in zip(axes[0], shown, strict=False):
        stock = runs[f"a{workers}"]
        names = sorted((name for name in runs if name.endswith(workers)), reverse=True)
        for row, name in enumerate(names):
            found = [
                one["jobs_per_s"] / two["jobs_per_s"]
                for one, two in zip(runs[name], stock, strict=False)
                if one and two
            ]
            if found:
                middle = sorted(found)[len(found) // 2]
                axis.barh(row, middle, color="tab:blue" if name[0] in OURS else "tab:gray", height=0.6)
                axis.plot(found, [row] * len(found), "k.", markersize=4)
        axis.set_yticks(range(len(names)), [NAMES[name[0]] for name in names])
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(f"{workers} worker process{'es' if workers == '2' else ''}", fontsize=10)
        axis.set_xlabel("times RQ's SimpleWorker (dots: rounds)")
    figure.savefig(path, dpi=DPI)


def _delays(delays: dict[str, dict[str, list[Any]]], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for name, paces in sorted(delays.items()):
        for pace, rounds in sorted(paces.items(), key=lambda one: int(one[0])):
            values = sorted(value * 1000 for each in rounds for value in each["from_begin_s"])
            shares = [(number + 1) / len(values) * 100 for number in range(len(values))]
            color = {"a": "tab:gray", "g": "tab:blue", "h": "tab:cyan", "i": "tab:green", "j": "tab:olive"}.get(
                name[0], "tab:red"
            )
            axis.plot(
                values,
                shares,
                color=color,
                linestyle="-" if pace == "100" else "--",
                label=f"{NAMES[name[0]]}, {pace}/s",
            )
    axis.set_xscale("log")
    axis.set_xlabel("ms from the call of enqueue to the request at the exchange")
    axis.set_ylabel("% of orders within")
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
