"""`fillonce ledger`: double-entry balances and postings."""

from typing import Annotated, Any

import typer

from app.cli.exit_codes import FAILED
from app.cli.output import as_json, as_table, emit, iso
from app.cli.typers import plain_typer

app = plain_typer(no_args_is_help=True)


@app.callback()
def ledger() -> None:
    """Show the ledger's balances and postings."""


@app.command("balances")
def balances(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Balances of zero too.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show the balance of every account in every asset.

    Example:
      fillonce ledger balances --json
    """
    from app.books import reports  # lazy: --help needs no database
    from app.cli.opening import books

    with books() as opened, opened.journal.read() as connection:
        rows = reports.ledger_balances(connection, include_zero=all_)
    if json_:
        emit(as_json({"account": row.account, "asset": row.asset, "amount": row.amount}) for row in rows)
    else:
        emit(as_table(("account", "asset", "amount"), [(row.account, row.asset, row.amount) for row in rows]))


@app.command("postings")
def postings(
    *,
    key: Annotated[str | None, typer.Option("--key", help="Only of this intent.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many transactions.")] = 50,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show the postings of the newest transactions.

    Example:
      fillonce ledger postings --limit 10
    """
    from app.books import reports  # lazy: --help needs no database
    from app.cli.opening import books

    columns = ("time", "transaction_id", "account", "asset", "amount", "description")
    rows: list[dict[str, Any]] = []
    with books() as opened:
        after: tuple[int, str] | None = None
        left = limit
        while left > 0:
            with opened.journal.read() as connection:
                page = reports.postings(connection, limit=min(left, reports.MAX_PAGE), after=after, key=key)
            rows = [_fields(line) for line in page.lines]
            if json_:
                emit(as_json(row) for row in rows)
            elif rows:
                headers = [name.replace("_", " ") for name in columns]
                emit(as_table(headers, [[row[name] for name in columns] for row in rows]))
            left -= reports.MAX_PAGE
            after = page.after
            if after is None:
                return


@app.command("check")
def check(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False) -> None:
    """Compare the books with themselves and with the exchange, exactly; exit 1 if anything differs.

    Example:
      fillonce ledger check
    """
    from app.cli.ledger_check import check_against_exchange  # lazy: --help needs no database
    from app.cli.opening import installation
    from app.cli.output import say
    from app.composition import compose

    with installation() as opened:
        checked = check_against_exchange(compose(opened, "ledger-check"))
    columns = ("venue", "what", "ours", "theirs")
    rows = [tuple(getattr(one, name) for name in columns) for one in checked.differences]
    if json_:
        emit(as_json(dict(zip(columns, row, strict=True))) for row in rows)
    elif rows:
        emit(as_table(columns, rows))
    venues = ", ".join(venue.value for venue in checked.venues) or "no venue opened yet"
    say(f"{len(rows)} differences; {checked.trades} trades compared one by one ({venues})")
    if rows:
        raise typer.Exit(FAILED)


def _fields(line: Any) -> dict[str, Any]:
    return {
        "transaction_id": line.transaction_id,
        "line": line.line,
        "account": line.account,
        "asset": line.asset,
        "amount": line.amount,
        "kind": line.kind,
        "description": line.description,
        "key": line.key,
        "time": iso(line.time_ms),
        "posted_at": iso(line.posted_at_ms),
    }
