"""`fillonce archive`: intents that are long over make room, and their keys stay refused."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exit_codes
from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, say

if TYPE_CHECKING:
    from app.cli.archive_file import CopyFile
    from app.journal.archiving import Report


def archive(
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Intents that ended, and were last changed, longer ago than this.")
    ] = "90d",
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE.jsonl.gz", help="Write a copy of what is archived into this new file."),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who does it; kept in the audit trail.")] = "archive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be archived, and what not.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Pack content, attempts, proofs and follow-ups of intents that are long over into one small row each.

    Keys stay taken: the same intent again is a duplicate, another one under its key a conflict. An execution that shows
    up late is still known to be ours, and brings its intent back. Books and audit trail are not touched. Left alone is
    what is not finished and booked, or has anything open. Runs beside the working system, in small batches; broken off
    at any moment, it goes on when it is run again. `intents show KEY` finds what is archived.

    Example:
      fillonce archive --older-than 90d --to 2026-q3.jsonl.gz
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.clock import SystemClock
    from app.journal import archiving

    older_than_ms = seconds(older_than) * 1000
    if older_than_ms < archiving.MIN_AGE_MS:
        raise typer.BadParameter(f"{older_than[:40]!r} is too short: give 1d or more", param_hint="--older-than")
    copies = None if to is None or dry_run else _new_file(to)
    with contextlib.closing(copies) if copies else contextlib.nullcontext(), books() as opened:
        report = archiving.run(
            opened.journal, SystemClock(), older_than_ms=older_than_ms, by=by.strip() or "archive", copies=copies,
            is_dry=dry_run,
        )  # fmt: skip
    emit(
        [as_json(_fields(report, copies.name if copies else None, is_dry=dry_run))]
        if json_
        else _lines(report, is_dry=dry_run)
    )
    if copies is not None:
        say(f"copy: {copies.name}")
    if report.archived and not dry_run:
        say("the room is used again; SQLite's file gets smaller by VACUUM only, with every process stopped")


def _new_file(path: Path) -> "CopyFile":
    from app.cli.archive_file import CopyFile  # lazy

    try:
        return CopyFile(path)
    except OSError as error:
        say(f"--to: {error.strerror}: {path}; name a new file in a folder that exists")
        raise typer.Exit(exit_codes.USAGE) from error


def _fields(report: "Report", file: str | None, *, is_dry: bool) -> dict[str, object]:
    return {"archived": report.archived, "dry_run": is_dry, "kept": dict(sorted(report.kept.items())), "file": file}


def _lines(report: "Report", *, is_dry: bool) -> list[str]:
    rows: list[list[object]] = [["would be archived" if is_dry else "archived", report.archived]]
    rows += [[f"kept: {why}", count] for why, count in sorted(report.kept.items())]
    return as_table(["intents", "count"], rows)
