"""`fillonce retries`: every attempt that was ever made, its class, its delay and its result."""

import contextlib
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, iso, say
from app.cli.typers import plain_typer

if TYPE_CHECKING:
    from app.journal.attempt_history import PastAttempt, Wanted

_TABLE_LIMIT: Final = 50
_COLUMNS: Final = ("time", "key", "job_type", "attempt", "class", "delay_ms", "result", "state")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

app = plain_typer(no_args_is_help=True)

Since = Annotated[
    str | None, typer.Option("--since", help="Only those of the last 30m, 24h, 7d, or since 2026-11-21T08:00:00Z.")
]
Type = Annotated[
    str | None, typer.Option("--type", help="Only this type: order, cancel; with a venue: order_usdm, order_spot.")
]
Class = Annotated[str | None, typer.Option("--class", help="Only failures of this class, such as rate_limited.")]
OnlyRetries = Annotated[bool, typer.Option("--only-retries", help="Without the first attempt of each intent.")]


@app.callback()
def retries() -> None:
    """List and export the history of attempts: each one, its class, its delay, its result."""


@app.command("list")
def list_(
    *,
    since: Since = None,
    type_: Type = None,
    class_: Class = None,
    only_retries: OnlyRetries = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help=f"At most so many. With --json all, otherwise {_TABLE_LIMIT}, if not given."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List attempts, newest first.

    Example:
      fillonce retries list --since 24h --class rate_limited
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.journal.attempt_history import pages

    wanted = _wanted(since, type_, class_, only_retries=only_retries)
    shown = limit if json_ or limit is not None else _TABLE_LIMIT
    with books() as opened:
        listed = pages(opened.journal, wanted, newest_first=True, limit=shown)
        if json_:
            for page in listed:
                emit(as_json(fields(one)) for one in page)
            return
        rows = [fields(one) for page in listed for one in page]
    emit(as_table([name.replace("_", " ") for name in _COLUMNS], [[row[name] for name in _COLUMNS] for row in rows]))
    if limit is None and len(rows) == _TABLE_LIMIT:
        say(f"the newest {_TABLE_LIMIT}; --limit shows more, `fillonce retries export` writes all")


@app.command("export")
def export(
    *,
    since: Since = None,
    type_: Type = None,
    class_: Class = None,
    only_retries: OnlyRetries = False,
    format_: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", help="Where to write; standard output if not given.", dir_okay=False)
    ] = None,
) -> None:
    """Write attempts, oldest first, as JSON lines or CSV. Memory does not grow with the history.

    Example:
      fillonce retries export --since 7d --format csv --output attempts.csv
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.journal.attempt_history import pages

    if format_ not in {"jsonl", "csv"}:
        raise typer.BadParameter(f"{format_[:40]!r} is neither jsonl nor csv", param_hint="--format")
    wanted = _wanted(since, type_, class_, only_retries=only_retries)
    count = 0
    with books() as opened, _opened(output) as file:
        writer = csv.writer(file)
        for page in pages(opened.journal, wanted):
            if format_ == "csv":
                if not count:
                    writer.writerow(fields(page[0]))
                writer.writerows([_cell(value) for value in fields(one).values()] for one in page)
            else:
                file.writelines(f"{as_json(fields(one))}\n" for one in page)
            count += len(page)
    say(f"{count} attempts" + (f" written to {output}" if output else ""))


def fields(one: "PastAttempt") -> dict[str, object]:
    """Return an attempt as it is listed and exported."""
    took_ms = None if one.settled_at_ms is None else one.settled_at_ms - one.dispatched_at_ms
    return {
        "time": iso(one.dispatched_at_ms),
        "key": one.key,
        "job_type": one.job_type,
        "symbol": one.symbol,
        "attempt": one.attempt,
        "class": one.failure_class,
        "rule": one.rule,
        "http_status": one.http_status,
        "code": one.code,
        "delay_ms": one.retry_delay_ms,
        "result": one.result,
        "settled_at": iso(one.settled_at_ms),
        "settled_by": one.settled_by,
        "took_ms": took_ms,
        "state": one.state,
        "owner": one.owner,
        "answer": one.answer,
    }


def _wanted(since: str | None, type_: str | None, class_: str | None, *, only_retries: bool) -> "Wanted":
    from app.job_safety.outcome import FailureClass  # lazy: --help needs nothing of this
    from app.journal.attempt_history import Wanted

    if class_ is not None and class_ not in set(FailureClass):
        known = ", ".join(FailureClass)
        raise typer.BadParameter(f"{class_[:40]!r} is not a class; use one of {known}", param_hint="--class")
    if type_ is not None and type_ not in {"order", "order_usdm", "order_spot", "cancel"}:
        raise typer.BadParameter(
            f"{type_[:40]!r} has no attempts; use order, order_usdm, order_spot or cancel", param_hint="--type"
        )
    return Wanted(
        since_ms=None if since is None else since_ms(since),
        job_type=type_,
        failure_class=class_,
        only_retries=only_retries,
    )


def since_ms(text: str) -> int:
    """Return the instant that `--since` names, in milliseconds since the epoch.

    Raises:
        typer.BadParameter: neither a duration nor an instant with its zone.
    """
    from datetime import datetime  # lazy: --help needs no time

    from app.clock import SystemClock, to_ms

    try:
        return to_ms(datetime.fromisoformat(text))
    except ValueError:
        pass
    try:
        return SystemClock().now_ms() - seconds(text) * 1000
    except typer.BadParameter:
        words = f"{text[:40]!r} is neither a duration (30m, 24h) nor an instant with its zone (2026-11-21T08:00:00Z)"
        raise typer.BadParameter(words, param_hint="--since") from None


def _cell(value: object) -> object:
    """Return a value for a spreadsheet: text that it would take for a formula is quoted."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        file = output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise typer.BadParameter(f"{output}: {error.strerror}", param_hint="--output") from error
    with file:
        yield file
