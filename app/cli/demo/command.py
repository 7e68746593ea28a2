"""The command itself; what it does is in its neighbors."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_INTENTS = 240
DEFAULT_KILLS = 8


def demo(
    *,
    intents: Annotated[
        int, typer.Option("--intents", min=1, max=100_000, help="Intents to enqueue.")
    ] = DEFAULT_INTENTS,
    kills: Annotated[int, typer.Option("--kills", min=0, max=1000, help="Workers to kill.")] = DEFAULT_KILLS,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is left to chance.")] = 1,
    klines: Annotated[
        Path | None, typer.Option("--klines", help="Candle file (CSV, gzipped or not): a strategy trades it.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="The table as one JSON object.")] = False,
) -> None:
    """Send intents through real workers to the local exchange, kill workers while orders are on the wire, and check.

    Everything is fresh and private: Redis, journal, exchange. Exit 0 only if nothing is duplicated, lost or off.

    Example:
      fillonce demo --intents 200 --kills 5
    """
    from app.cli.demo.run import Plan, run  # lazy: --help needs nothing of this
    from app.cli.demo.table import lines
    from app.cli.exit_codes import DONE, FAILED
    from app.cli.output import as_json, emit

    if klines is not None and not klines.is_file():
        raise typer.BadParameter(f"there is no file {klines}", param_hint="--klines")
    result = run(Plan(intents=intents, kills=kills, seed=seed, klines=klines))
    emit([as_json(result.as_json())] if json_ else lines(result))
    raise typer.Exit(DONE if result.is_clean else FAILED)
