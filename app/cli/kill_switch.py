"""`fillonce kill-switch`: stop what leaves this machine, and let it go on."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exit_codes
from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, iso, say
from app.cli.typers import plain_typer
from app.job_safety.kill_switch import KillSource, KillState

if TYPE_CHECKING:
    from app.control.kill import Control
    from app.execution.kill_settling import Landing
    from app.execution.kill_status import KillStatus

_Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")]
_By = Annotated[str, typer.Option("--by", help="Who; kept in the audit trail.")]
_Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait for what is on the wire: 30s, 2m.")]

app = plain_typer(no_args_is_help=True)


@app.callback()
def kill_switch() -> None:
    """Stop what leaves this machine, and let it go on.

    The most restrictive of its sources wins: this command, the Redis key, a file called KILL_SWITCH in FILLONCE_HOME,
    and the variable FILLONCE_KILL_SWITCH. One that falls silent releases nothing.

    Example:
      fillonce kill-switch on --reason "orders without end" --by anna
    """


@app.command("status")
def status(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Show how the switch stands, who holds it, and what is still unsettled.

    Example:
      fillonce kill-switch status
    """
    from app.cli.kill_control import control  # lazy: --help needs no stores
    from app.control.kill_verbs import WORDS, tell_redis

    with control() as one:
        found = one.status()
        tell_redis(one, say)
    if json_:
        emit([as_json(found.fields())])
        return
    emit([f"{found.state.value}: {WORDS[found.state]}"])
    emit(as_table(["source", "holds", "says now", "by", "since", "reason"], _rows(found)))
    emit([", ".join(f"{count} {state.value}" for state, count in found.unsettled.items())])


@app.command("on")
def on(
    *,
    reason: _Reason,
    by: _By,
    cancel_open_orders: Annotated[
        bool, typer.Option("--cancel-open-orders", help="Cancel every open order of ours before HALT.")
    ] = False,
    timeout: _Timeout = "30s",
) -> None:
    """Stop everything: HALT. Returns when what was on the wire has settled, and says how many requests that were.

    With --cancel-open-orders the switch stays at CANCEL_ONLY until all are canceled; if time runs out it remains there,
    so that the cancels go on.

    Exit code: 0 stopped and settled, 1 time ran out, 4 something is in doubt. Orders are stopped in all three cases.

    Example:
      fillonce kill-switch on --reason "orders without end" --by anna --cancel-open-orders
    """
    from app.cli.kill_control import control

    limit_s = seconds(timeout)
    _check(reason, by)
    with control() as one:
        if cancel_open_orders:
            from app.cli.kill_cancel import cancel_all_open

            _throw(one, KillState.CANCEL_ONLY, reason=reason, by=by, limit_s=limit_s)
            left = cancel_all_open(one, timeout_s=limit_s)
            if left:
                say(f"{len(left)} orders are not canceled yet: {', '.join(left[:5])}")
                say("the switch stays at CANCEL_ONLY, so that they go on being canceled; `kill-switch on` means HALT")
                raise typer.Exit(exit_codes.FAILED)
        _finish(one, _throw(one, KillState.HALT, reason=reason, by=by, limit_s=limit_s))


@app.command("reduce-only")
def reduce_only(*, reason: _Reason, by: _By, timeout: _Timeout = "30s") -> None:
    """Stop what opens risk; reduce-only and protective orders and cancels go on.

    Example:
      fillonce kill-switch reduce-only --reason "flatten, then look" --by anna
    """
    _set(KillState.REDUCE_ONLY, reason=reason, by=by, timeout=timeout)


@app.command("cancel-only")
def cancel_only(*, reason: _Reason, by: _By, timeout: _Timeout = "30s") -> None:
    """Stop every order; cancels go on.

    Example:
      fillonce kill-switch cancel-only --reason "odd fills" --by anna
    """
    _set(KillState.CANCEL_ONLY, reason=reason, by=by, timeout=timeout)


@app.command("off")
def off(
    *,
    reason: _Reason,
    by: _By,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Whose latch; may be given several times. Without it: operator, this command's."),
    ] = None,
) -> None:
    """Release a latch, after a clean reconcile: nothing in doubt or quarantined, no open order of ours unexplained.

    There is no way around that: what is in doubt can be settled by `intents resolve`. Latches of other sources are
    never released unless they are named.

    Exit code: 0 everything may leave again, 1 it was refused or another source still holds the switch.

    Example:
      fillonce kill-switch off --reason "the bot is mended" --by anna
    """
    from app.cli.kill_control import control
    from app.control import kill_verbs

    _check(reason, by)
    sources = [_source(text) for text in source or [KillSource.OPERATOR.value]]
    with control() as one:
        released = kill_verbs.release(one, sources, by=by, reason=reason, tell=say)
    if not released.is_off:
        raise typer.Exit(exit_codes.FAILED)


@app.command("drill")
def drill(
    *,
    by: _By = "drill",
    reason: _Reason = "drill",
    json_: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Prove that the switch fires on the real path, and restore what was before.

    Two orders of its own go the way of every order, in mode paper or testnet: admission must refuse one, and the
    transaction that dispatches the other. For this moment nothing that opens risk leaves.

    Exit code: 0 it fires, 1 it does not, or the drill was refused.

    Example:
      fillonce kill-switch drill --by anna
    """
    from dataclasses import replace

    from app.cli.kill_control import control
    from app.cli.opening import installation
    from app.composition import compose
    from app.execution.drill import DrillRefusedError, DrillUnderWayError, hold

    with control() as one, installation() as opened:
        try:
            drilled = hold(
                replace(compose(opened, "kill-switch-drill"), record=one.record), one.switch, by=by, reason=reason
            )
        except (DrillRefusedError, DrillUnderWayError) as error:
            say(str(error))
            raise typer.Exit(exit_codes.FAILED) from error
    if json_:
        emit(
            [
                as_json(
                    {
                        "has_fired": drilled.has_fired,
                        "at_dispatch": drilled.at_dispatch,
                        "at_admission": drilled.at_admission,
                    }
                )
            ]
        )
    say(f"at dispatch:  {drilled.at_dispatch}")
    say(f"at admission: {drilled.at_admission}")
    if drilled.is_inconclusive:
        say("nothing is proven: something else stopped an order before the switch could; try again")
    else:
        say("the switch fires; everything is as it was" if drilled.has_fired else "THE SWITCH DID NOT FIRE")
    if not drilled.has_fired:
        raise typer.Exit(exit_codes.FAILED)


def _set(state: KillState, *, reason: str, by: str, timeout: str) -> None:
    from app.cli.kill_control import control

    limit_s = seconds(timeout)
    _check(reason, by)
    with control() as one:
        _finish(one, _throw(one, state, reason=reason, by=by, limit_s=limit_s))


def _check(reason: str, by: str) -> None:
    if not reason.strip() or not by.strip():
        raise typer.BadParameter("say why and who: the audit trail keeps it", param_hint="--reason, --by")


def _source(text: str) -> KillSource:
    try:
        return KillSource(text)
    except ValueError:
        known = ", ".join(KillSource)
        raise typer.BadParameter(f"{text[:40]!r} is not a source; use one of {known}", param_hint="--source") from None


def _throw(one: "Control", state: KillState, *, reason: str, by: str, limit_s: int) -> "Landing":
    from app.control import kill_verbs

    return kill_verbs.throw(one, state, by=by, reason=reason, timeout_s=limit_s, tell=say).landing


def _finish(one: "Control", landing: "Landing") -> None:
    found = one.status()
    say(f"the switch is at {found.state.value}")
    if landing.in_doubt:
        raise typer.Exit(exit_codes.IN_DOUBT)
    if landing.in_flight:
        raise typer.Exit(exit_codes.FAILED)


def _rows(found: "KillStatus") -> list[list[object]]:
    rows = []
    for source in KillSource:
        latch = found.latches.get(source)
        held: list[object] = [None] * 4 if latch is None else [
            latch.state.value, latch.actor, iso(latch.since_ms), latch.reason
        ]  # fmt: skip
        rows.append([source.value, held[0], found.says_now.get(source), *held[1:]])
    return rows
