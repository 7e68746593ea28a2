"""`fillonce flatten`: close futures positions by reduce-only market orders."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import exit_codes
from app.cli.durations import seconds
from app.cli.output import as_json, as_table, emit, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.execution.flatten import Exit
    from app.job_safety.state import IntentState

_LOOK_S: Final = 0.2


def flatten(
    symbol: Annotated[str | None, typer.Argument(metavar="[SYMBOL]", help="All futures positions if none.")] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")],
    by: Annotated[str, typer.Option("--by", help="Who; kept in the audit trail.")],
    yes: Annotated[bool, typer.Option("--yes", help="Send the orders. Without it they are only shown.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait until they are done: 60s, 5m.")] = "60s",
    json_: Annotated[bool, typer.Option("--json", help="Print the plan, one JSON object per order.")] = False,
) -> None:
    """Close futures positions by market orders that can only reduce. Spot holdings are left alone.

    Needs a kill switch that lets such orders out: RUN or REDUCE_ONLY. Under HALT or CANCEL_ONLY nothing is sent; step
    down first, with `fillonce kill-switch reduce-only`. Asking twice closes once.

    Exit code: 0 all are flat, 1 not all of them, or it was refused, 4 an order is in doubt.

    Example:
      fillonce flatten BTCUSDT --reason "the strategy is wrong" --by anna --yes
    """
    from app.cli.kill_control import control
    from app.cli.opening import installation
    from app.composition import compose
    from app.execution.flatten import plan

    limit_s = seconds(timeout)
    if not reason.strip() or not by.strip():
        raise typer.BadParameter("say why and who: the audit trail keeps it", param_hint="--reason, --by")
    with control() as one, installation() as opened:
        if refused := _refused(one.status().state):
            say(refused)
            raise typer.Exit(exit_codes.FAILED)
        context = compose(opened, "flatten")
        exits = plan(context, symbol)
        _show(exits, json_=json_)
        if not exits:
            say("nothing to close: the exchange shows no futures position")
            return
        if not yes:
            say("nothing was sent: --yes sends these orders")
            raise typer.Exit(exit_codes.USAGE)
        from app.cli.flatten_orders import submit, wait_until_over

        submit(opened, context, exits, by=by.strip(), reason=reason.strip())
        states = wait_until_over(context, exits, timeout_s=limit_s)
        left = plan(context, symbol)
    _finish(states, left)


def _refused(state: str) -> str | None:
    from app.job_safety.admission import EffectKind
    from app.job_safety.kill_switch import ALLOWED, KillState

    if EffectKind.REDUCE in ALLOWED[KillState(state)]:
        return None
    return (
        f"the kill switch is at {state}, which lets no order out, not even one that reduces; step down first: "
        "`fillonce kill-switch reduce-only --reason … --by …`, and release the sources that `kill-switch status` names"
    )


def _show(exits: "Sequence[Exit]", *, json_: bool) -> None:
    rows = [
        {
            "symbol": one.symbol,
            "position": one.quantity,
            "booked": one.booked,
            "side": order.side,
            "quantity": order.quantity,
            "key": order.key,
        }
        for one in exits
        for order in one.orders
    ]
    if json_:
        emit(as_json(row) for row in rows)
    elif rows:
        emit(as_table(list(rows[0]), [list(row.values()) for row in rows]))
    for one in exits:
        if one.quantity != one.booked:
            say(f"{one.symbol}: the books say {one.booked}, the exchange {one.quantity}; the exchange counts")


def _finish(states: "dict[str, IntentState]", left: "Sequence[Exit]") -> None:
    from app.job_safety.state import DOUBTFUL

    for key, state in states.items():
        say(f"{key} is {state.value}")
    for one in left:
        say(f"{one.symbol} is not flat: {one.quantity}")
    if any(state in DOUBTFUL for state in states.values()):
        raise typer.Exit(exit_codes.IN_DOUBT)
    if left:
        raise typer.Exit(exit_codes.FAILED)
    say("all are flat")
