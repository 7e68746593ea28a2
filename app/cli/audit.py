"""`fillonce audit`: who did what and why, and whether the trail is still what was written."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import exit_codes
from app.cli.output import as_json, as_table, emit, iso, say
from app.cli.typers import plain_typer

if TYPE_CHECKING:
    from app.journal.attempt_seal_check import SealReport

_TABLE_LIMIT: Final = 50
_COLUMNS: Final = ("seq", "at", "actor", "action", "subject", "from", "to", "why")

app = plain_typer(no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Show and verify the trail of every operator action."""


@app.command("list")
def list_(
    *,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Only of this: kill_switch, an intent's key, …")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help=f"The newest so many. With --json all, else {_TABLE_LIMIT}, if not given."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List what was done, oldest first. As a table without the seals of attempts: --subject attempts lists those.

    Example:
      fillonce audit list --subject kill_switch
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.journal import audit as trail
    from app.journal.attempt_seals import SEALED

    shown = limit if json_ or limit is not None else _TABLE_LIMIT
    # Some a minute: people look for what people did.
    hidden = None if json_ or subject is not None else SEALED
    with books() as opened, opened.journal.read() as connection:
        rows = [
            {**asdict(row), "at": iso(row.at_ms), "detail": json.loads(row.detail)}
            for row in trail.newest(connection, subject=subject, limit=shown, without_action=hidden)
        ]
    if json_:
        emit(as_json(row) for row in rows)
        return
    table = [{**row, **{name: row["detail"].get(name) for name in ("from", "to", "why")}} for row in rows]
    emit(as_table(list(_COLUMNS), [[row[name] for name in _COLUMNS] for row in table]))
    if limit is None and len(rows) == _TABLE_LIMIT:
        say(f"the newest {_TABLE_LIMIT}; --limit shows more")


@app.command("verify")
def verify(
    *,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", metavar="SEQ:HASH", help="A head as it was noted earlier; the trail must still hold it."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Verify the trail: no row changed, missing (at its end too), added or moved. Prints its head, to be noted.

    Verifies by it every attempt that it seals: none changed, deleted or slipped in. What has settled is sealed within
    minutes while the keeper runs; how much is not sealed yet is told, and whether that is late.

    Exit code: 0 nothing is wrong, 1 something is.

    Example:
      fillonce audit verify
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.clock import SystemClock
    from app.journal import attempt_seal_check
    from app.journal import audit as trail

    noted = None if head is None else _noted(head)
    with books() as opened:
        with opened.journal.read() as connection:
            last = trail.last(connection)
        with opened.journal.moment() as connection:
            problems = trail.verify(connection, head=noted)
        seals = attempt_seal_check.verify(opened.journal, now_ms=SystemClock().now_ms())
    problems += seals.problems
    found = {"rows": last.seq if last else 0, "head": last.head if last else None, "problems": problems}
    if json_:
        emit([as_json({**found, "more_problems": seals.more_problems, "attempts": _counts(seals)})])
    else:
        emit(problems or [f"{found['rows']} rows, head {found['head']}", _told(seals)])
    if seals.more_problems:
        say(f"and {seals.more_problems} more")
    if seals.late:
        words = "is any keeper running? It seals what has settled within minutes"
        say(f"{seals.late} attempts are not sealed since {iso(seals.oldest_unsealed_ms)}: {words}")
    if problems:
        say("the trail, or what it seals, is not what was written")
        raise typer.Exit(exit_codes.FAILED)
    say("the trail is whole")


def _counts(seals: "SealReport") -> dict[str, object]:
    return {
        "sealed": seals.sealed,
        "unsealed": seals.unsealed,
        "late": seals.late,
        "oldest_unsealed_at": iso(seals.oldest_unsealed_ms),
        "seals": seals.seals,
    }


def _told(seals: "SealReport") -> str:
    return f"{seals.sealed} attempts sealed in {seals.seals} rows, {seals.unsealed} settled and not sealed yet"


def _noted(text: str) -> tuple[int, str]:
    seq, _, hash_ = text.partition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) <= 18 and hash_):
        raise typer.BadParameter(f"{text[:80]!r} is not SEQ:HASH, as `audit verify` prints it", param_hint="--head")
    return int(seq), hash_
