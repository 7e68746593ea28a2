"""`fillonce intents`: what was asked for, and what became of it."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import exit_codes
from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, say
from app.cli.typers import plain_typer
from app.job_safety.state import IntentState

if TYPE_CHECKING:
    from app.cli.waiting import Standing

_TABLE_LIMIT: Final = 50
_COLUMNS: Final = ("key", "type", "state", "attempts", "executed_quantity", "average_price", "updated_at", "reason")

app = plain_typer(no_args_is_help=True)


@app.callback()
def intents() -> None:
    """List, show and wait for intents."""


@app.command("list")
def list_(
    *,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state; may be given several times.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help=f"At most so many. With --json all, otherwise {_TABLE_LIMIT}, if not given."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List intents, newest first.

    Example:
      fillonce intents list --state IN_DOUBT --state QUARANTINED --json
    """
    from app.cli.intent_pages import pages, summary  # lazy: --help needs no database
    from app.cli.opening import books

    states = [_state(text) for text in state or []]
    shown = limit if json_ or limit is not None else _TABLE_LIMIT
    with books() as opened:
        listed = pages(opened.journal, states=states, limit=shown)
        if json_:
            for page in listed:
                emit(as_json(summary(row)) for row in page)
            return
        rows = [summary(row) for page in listed for row in page]
    emit(as_table([name.replace("_", " ") for name in _COLUMNS], [[row[name] for name in _COLUMNS] for row in rows]))
    if limit is None and len(rows) == _TABLE_LIMIT:
        say(f"the newest {_TABLE_LIMIT}; --limit shows more")


@app.command("show")
def show(
    key: Annotated[str, typer.Argument(help="The intent's key.")],
    *,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show all that is known of one intent: attempts with their answers, proofs, fills, postings, follow-ups, audit.

    Example:
      fillonce intents show first-1
    """
    from app.cli.dossier import as_text, collect  # lazy: --help needs no database
    from app.cli.opening import books

    with books() as opened, opened.journal.read() as connection:
        dossier = collect(connection, key)
    emit([as_json(dossier)] if json_ else as_text(dossier))


@app.command("trace")
def trace(
    key: Annotated[str, typer.Argument(help="The intent's key.")],
    *,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    otlp: Annotated[
        bool,
        typer.Option("--otlp", help="One line of OTLP/JSON, as OpenTelemetry collectors take it. Sends nothing."),
    ] = False,
) -> None:
    """Show where an intent's time went and why: waiting, each attempt with request and doubt, fills, booking.

    Made from the journal, at any time, for any intent. Ids of trace and spans follow from account, mode and key.

    Example:
      fillonce intents trace first-1 --otlp > trace.json
    """
    from app.cli.dossier import collect  # lazy: --help needs no database
    from app.cli.opening import books
    from app.cli.trace import trace_of
    from app.cli.trace_view import as_fields, as_otlp, as_text
    from app.clock import SystemClock

    if json_ and otlp:
        raise typer.BadParameter("give one of them: they print different JSON", param_hint="--json, --otlp")
    with books() as opened, opened.journal.read() as connection:
        dossier = collect(connection, key)
    found = trace_of(dossier, namespace=(opened.meta.account, opened.meta.mode), now_ms=SystemClock().now_ms())
    if json_ or otlp:
        emit([as_json(as_otlp(found) if otlp else as_fields(found))])
    else:
        emit(as_text(found))


@app.command("wait")
def wait(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="All that are not finished if none.")
    ] = None,
    *,
    timeout: Annotated[str, typer.Option("--timeout", help="How long at most: 60, 60s, 5m.")] = "60s",
    json_: Annotated[bool, typer.Option("--json", help="Print how it stands at the end, as one JSON object.")] = False,
) -> None:
    """Wait until intents are finished: in a final state, and what was filled is booked.

    Exit code: 0 all are finished, 4 one is quarantined and waits for a person, 1 time ran out.

    Example:
      fillonce intents wait first-1 first-2 --timeout 30s
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.cli.waiting import wait_until_settled

    limit_s = seconds(timeout)
    with books() as opened:
        standing = wait_until_settled(opened.journal, keys or [], timeout_s=limit_s)
    if json_:
        emit([as_json(standing.fields())])
    _tell(standing, limit_s)
    if standing.quarantined:
        raise typer.Exit(exit_codes.IN_DOUBT)
    if standing.unfinished:
        raise typer.Exit(exit_codes.FAILED)


@app.command("resolve")
def resolve(
    key: Annotated[str, typer.Argument(help="The intent's key.")],
    *,
    as_: Annotated[
        str, typer.Option("--as", help="executed or not-executed; retry for what is quarantined and no order.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")],
    by: Annotated[str, typer.Option("--by", help="Who says so; kept in the audit trail.")],
    order_id: Annotated[
        int | None, typer.Option("--order-id", min=1, help="The exchange's id of the order, for --as executed.")
    ] = None,
) -> None:
    """Settle an intent that is in doubt or quarantined by a person's verdict.

    not-executed closes it as EXPIRED, and it is never sent again; it is refused until every request of it has lost its
    validity at the exchange. executed takes in what the exchange says of the order that you name. Proof of execution
    overturns either. A quarantined signal or book job had no effect: retry lets it run again, not-executed gives it up.

    Example:
      fillonce intents resolve first-1 --as not-executed --reason "not in the exchange's history" --by anna
    """
    from app.cli.opening import installation  # lazy: --help needs no database
    from app.composition import compose
    from app.execution.resolve import Ruling, TooEarlyError, Verdict, VerdictRefusedError
    from app.execution.resolve import resolve as settle

    if as_ not in set(Verdict):
        raise typer.BadParameter(f"{as_[:40]!r} is none of {', '.join(Verdict)}", param_hint="--as")
    if not reason.strip() or not by.strip():
        raise typer.BadParameter("say why and who: the audit trail keeps it", param_hint="--reason, --by")
    ruling = Ruling(verdict=Verdict(as_), reason=reason.strip(), by=by.strip(), order_id=order_id)
    with installation() as opened:
        try:
            row = settle(compose(opened, f"person-{by.strip()}"), key, ruling)
        except (VerdictRefusedError, TooEarlyError) as error:
            say(str(error))
            raise typer.Exit(exit_codes.FAILED) from error
    say(f"{key} is {row.state.value}: {row.reason or row.exchange_status or ''}")


def _tell(standing: "Standing", limit_s: int) -> None:
    if standing.unfinished:
        say(f"time ran out: {standing.unfinished} not finished after {limit_s} s{_some(standing.unfinished_keys)}")
    if standing.quarantined:
        say(f"{standing.quarantined} quarantined, waiting for a person{_some(standing.quarantined_keys)}")
    if standing.is_settled and not standing.quarantined:
        say("all are finished")


def _some(keys: tuple[str, ...]) -> str:
    return f": {', '.join(keys)}" if keys else ""


def _state(text: str) -> IntentState:
    try:
        return IntentState(text.upper())
    except ValueError:
        known = ", ".join(state.value for state in IntentState)
        raise typer.BadParameter(f"{text[:40]!r} is not a state; use one of {known}", param_hint="--state") from None
