"""`fillonce positions`: what the books hold."""

from typing import Annotated

import typer

from app.cli.output import as_json, as_table, emit, iso
from app.cli.typers import plain_typer

app = plain_typer()


@app.command("positions")
def positions(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Flat positions too.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show the positions of the books.

    Example:
      fillonce positions --json
    """
    from app.books import reports  # lazy: --help needs no database
    from app.cli.opening import books

    with books() as opened, opened.journal.read() as connection:
        rows = [
            {
                "account": row.account,
                "venue": row.venue,
                "symbol": row.symbol,
                "quantity": row.quantity,
                "entry_price": row.entry_price,
                "realized_pnl": row.realized_pnl,
                "last_trade_id": row.last_trade_id,
                "updated_at": iso(row.updated_at_ms),
            }
            for row in reports.positions(connection, include_flat=all_)
        ]
    columns = ("account", "venue", "symbol", "quantity", "entry_price", "realized_pnl", "updated_at")
    if json_:
        emit(as_json(row) for row in rows)
    else:
        emit(as_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows]))
