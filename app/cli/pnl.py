"""`fillonce pnl`: profit and loss."""

import re
from typing import Annotated, Final

import typer

from app.cli.output import as_json, as_table, emit
from app.cli.typers import plain_typer

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

app = plain_typer()


@app.command("pnl")
def pnl(
    *,
    since: Annotated[str, typer.Option("--since", help="First UTC day: 2026-11-21.")] = "",
    venue: Annotated[str | None, typer.Option("--venue", help="usdm or spot; both if not given.")] = None,
    total: Annotated[bool, typer.Option("--total", help="One row per venue and asset over all days.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show profit and loss per UTC day, venue and asset. Net is realized + funding - commission.

    Example:
      fillonce pnl --since 2026-11-01 --total
    """
    from app.books import reports  # lazy: --help needs no database
    from app.cli.opening import books

    if since and not _DAY.fullmatch(since):
        raise typer.BadParameter(f"{since[:40]!r} is not a day: write it as 2026-11-21", param_hint="--since")
    if venue not in {None, "usdm", "spot"}:
        raise typer.BadParameter(f"{venue!r} is not a venue: use usdm or spot", param_hint="--venue")
    with books() as opened, opened.journal.read() as connection:
        read = reports.pnl_total if total else reports.pnl_daily
        rows = [
            {
                **({} if total else {"day": row.day}),
                "venue": row.venue,
                "asset": row.asset,
                "realized": row.realized,
                "commission": row.commission,
                "funding": row.funding,
                "net": row.net,
                "trades": row.trades,
            }
            for row in read(connection, since_day=since, venue=venue)
        ]
    if json_:
        emit(as_json(row) for row in rows)
        return
    columns = (*(() if total else ("day",)), "venue", "asset", "realized", "commission", "funding", "net", "trades")
    emit(as_table(columns, [[row[name] for name in columns] for row in rows]))
