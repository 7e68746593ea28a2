"""`fillonce circuit`: what the circuit breakers let through, what moved them, and a person's override for a while."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.circuit_advise import advise
from app.cli.circuit_view import cell, change_fields, fields, opened_because
from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, iso, say
from app.cli.typers import plain_typer

if TYPE_CHECKING:
    from app.job_safety.circuit_breaker import BreakerState
    from app.wiring import Installation

_COLUMNS: Final = ("job_type", "state", "calls", "failures", "consecutive_failures", "open_until", "override", "why")
_HISTORY_COLUMNS: Final = ("at", "job_type", "action", "from", "to", "by", "why", "until")
_Job = Annotated[str, typer.Argument(metavar="JOB", help="The circuit, such as order_usdm; `circuit list` names all.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")]
_By = Annotated[str, typer.Option("--by", help="Who says so; kept in the audit trail.")]
_Ttl = Annotated[str, typer.Option("--ttl", help="For how long: 90s, 10m, 1h; 24h at most.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
DEFAULT_TTL: Final = "15m"
_LOOK_BACK: Final = 10_000
"""Changes of one circuit among which the one is looked for that opened it: days of failing probes."""

app = plain_typer(no_args_is_help=True)


@app.callback()
def circuit() -> None:
    """Show circuit breakers, and override one for a while.

    order_usdm and order_spot stop orders that open risk while the exchange fails. reduce_… and cancel_… are watched and
    never block. An override is the only one at a time, and ends by itself.
    """


@app.command("list")
def list_(*, json_: _Json = False) -> None:
    """List every circuit as the next call would find it.

    Example:
      fillonce circuit list
    """
    from app.cli.opening import installation  # lazy: --help needs no Redis
    from app.composition import make_breakers

    with installation() as opened:
        told = [fields(status) for status in make_breakers(opened).read_all()]
    if json_:
        emit(as_json(one) for one in told)
        return
    emit(
        as_table(
            [name.replace("_", " ") for name in _COLUMNS],
            [[cell(one, name, not_counted=None) for name in _COLUMNS] for one in told],
        )
    )


@app.command("show")
def show(job: _Job, *, json_: _Json = False) -> None:
    """Show one circuit: its state, what it has counted, and a person's override if there is one.

    Only a closed circuit counts. One that is not says what opened it; every change is in `circuit history`.

    Example:
      fillonce circuit show order_usdm
    """
    from app.cli.opening import installation  # lazy: --help needs no Redis
    from app.composition import make_breakers
    from app.journal import circuits

    with installation() as opened:
        status = make_breakers(opened).read(_known(job))
        _take_in(opened)
        with opened.journal.read() as connection:
            changes = circuits.history(connection, [job], limit=_LOOK_BACK)
    told = {**fields(status), "opened_because": opened_because(status, changes)}
    if json_:
        emit([as_json(told)])
        return
    emit(as_table(["field", "value"], [[name.replace("_", " "), cell(told, name)] for name in told]))


@app.command("open")
def open_(job: _Job, *, reason: _Reason, by: _By, ttl: _Ttl = DEFAULT_TTL) -> None:
    """Stop orders of this circuit until the time is over; then probes decide.

    Example:
      fillonce circuit open order_usdm --reason "exchange announced maintenance" --by anna --ttl 30m
    """
    _override(job, "open", reason=reason, by=by, ttl=ttl)


@app.command("close")
def close(job: _Job, *, reason: _Reason, by: _By, ttl: _Ttl = DEFAULT_TTL) -> None:
    """Let everything through, whatever fails, until the time is over; then the circuit decides again.

    Example:
      fillonce circuit close order_usdm --reason "false alarm, see status page" --by anna --ttl 10m
    """
    _override(job, "closed", reason=reason, by=by, ttl=ttl)


@app.command("half-open")
def half_open(job: _Job, *, reason: _Reason, by: _By, ttl: _Ttl = DEFAULT_TTL) -> None:
    """Let probes decide now instead of when the circuit's own time is over.

    Example:
      fillonce circuit half-open order_usdm --reason "exchange says it is back" --by anna
    """
    _override(job, "half_open", reason=reason, by=by, ttl=ttl)


@app.command("reset")
def reset(job: _Job, *, reason: _Reason, by: _By) -> None:
    """Close a circuit as if it were new: nothing counted, no override; the next failures open it as usual.

    Example:
      fillonce circuit reset order_usdm --reason "override no longer needed" --by anna
    """
    _override(job, None, reason=reason, by=by, ttl="0")


@app.command("history")
def history(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this circuit.")] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
    json_: _Json = False,
) -> None:
    """List what moved the circuits, automatic changes too, oldest first: when, what, who and why.

    Example:
      fillonce circuit history order_usdm
    """
    from app.cli.opening import installation  # lazy: --help needs no database
    from app.job_safety.circuit_breaker import JOB_TYPES
    from app.journal import circuits

    job_types = JOB_TYPES if job is None else (_known(job),)
    with installation() as opened:
        _take_in(opened)
        with opened.journal.read() as connection:
            told = [change_fields(row) for row in circuits.history(connection, job_types, limit=limit)]
    if json_:
        emit(as_json(one) for one in told)
        return
    emit(
        as_table(
            [name.replace("_", " ") for name in _HISTORY_COLUMNS],
            [[one[name] for name in _HISTORY_COLUMNS] for one in told],
        )
    )


app.command("advise")(advise)


def _override(job: str, state: str | None, *, reason: str, by: str, ttl: str) -> None:
    from app.cli.opening import installation  # lazy: --help needs no Redis
    from app.composition import make_breakers
    from app.job_safety.circuit_breaker import BreakerState

    ttl_ms = seconds(ttl) * 1000
    with installation() as opened:
        breakers = make_breakers(opened)
        try:
            if state is None:
                before, after = breakers.reset(_known(job), by=by, reason=reason)
            else:
                before, after = breakers.override(_known(job), BreakerState(state), by=by, reason=reason, ttl_ms=ttl_ms)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        status = breakers.read(job)
        woken = _take_in(opened)
    until = "" if status.override is None else f" until {iso(status.override.until_ms)}, then it decides by itself"
    say(f"{job}: {_name(before)}, now {_name(after)}{until}")
    if woken:
        say(f"orders that waited for a circuit and go on now: {woken}")


def _take_in(opened: "Installation") -> int:
    """Do here too what the keeper does, which may not be running; return how many orders were brought forward."""
    from io import StringIO

    from app.composition import guard_names, make_breakers
    from app.execution.circuit_wake import CircuitWake
    from app.execution.circuits import journal_changes
    from app.job_safety.circuit_changes import CircuitChanges
    from app.observability.log import make_logger
    from app.observability.recorder import Recorder

    changes = CircuitChanges(opened.redis, guard_names(opened.settings))
    # What a person sees of it is said in words; the counters are kept.
    log = make_logger(stream=StringIO(), mode=opened.mode, account=opened.account)
    record = Recorder(
        log, opened.redis, opened.clock, mode=opened.mode, account=opened.account,
        is_counting=opened.settings.metrics.enabled,
    )  # fmt: skip
    while journal_changes(opened.journal, changes, opened.clock, record):
        pass
    woken = CircuitWake(opened.journal, make_breakers(opened), opened.clock, record).step()
    record.close()
    return woken


def _known(job: str) -> str:
    from app.job_safety.circuit_breaker import checked

    try:
        return checked(job)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="JOB") from error


def _name(state: "BreakerState") -> str:
    return state.value.replace("_", "-")
