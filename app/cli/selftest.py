"""`fillonce selftest`: does every safety gate fire?"""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exit_codes
from app.cli.output import as_json, as_table, emit, say

if TYPE_CHECKING:
    from app.selftest.run import Report


def selftest(
    *,
    by: Annotated[str, typer.Option("--by", help="Who; kept in the audit trail.")] = "selftest",
    json_: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Close every safety gate on the path that orders go, and see that it stops one.

    Small orders of its own go the way of every order, with this installation's settings, stores and exchange. None can
    leave: it is stopped before it could be sent, whichever gate is broken. The gates that are closed are its own, apart
    from the kill switch, which is tried by its drill: for that moment nothing that opens risk leaves, and what was
    before is restored even if this process dies. For modes paper and testnet.

    What was proven is kept in the audit trail, and as safety_gate_last_proof_timestamp_seconds. A gate that the
    settings turn off or let only observe does not fire.

    Exit code: 0 every gate fired, 1 one did not, or the self test was refused, 3 a store or the exchange is not there.

    Example:
      fillonce selftest --by anna
    """
    from app.cli.opening import installation  # lazy: --help needs no stores
    from app.clock import SystemClock
    from app.observability.log import make_logger
    from app.observability.recorder import Recorder
    from app.selftest.run import SelfTestRefusedError, SelfTestUnderWayError, hold

    if not by.strip():
        raise typer.BadParameter("say who: the audit trail keeps it", param_hint="--by")
    with installation() as opened:
        record = Recorder(
            make_logger(owner="selftest", mode=opened.mode, account=opened.account), opened.redis, SystemClock(),
            mode=opened.mode, account=opened.account, is_counting=opened.settings.metrics.enabled,
        )  # fmt: skip
        try:
            report = hold(opened, record, by=by.strip())
        except (SelfTestRefusedError, SelfTestUnderWayError) as error:
            say(str(error))
            raise typer.Exit(exit_codes.FAILED) from error
        finally:
            record.close()
    _show(report, is_json=json_)
    if not report.is_proven:
        raise typer.Exit(exit_codes.FAILED)


def _show(report: "Report", *, is_json: bool) -> None:
    if is_json:
        gates = [
            {
                "gate": one.gate,
                "has_fired": one.has_fired,
                "where": one.where,
                "took_ms": one.took_ms,
                "text": one.text,
            }
            for one in report.tried
        ]
        emit([as_json({"is_proven": report.is_proven, "control": report.control, "gates": gates})])
    else:
        rows = [
            [one.gate, "yes" if one.has_fired else "NO", one.where, one.took_ms, one.text[:100]] for one in report.tried
        ]
        emit(as_table(["gate", "fired", "where", "ms", "what stopped the order"], rows))
    missing = [one.gate for one in report.tried if not one.has_fired]
    say(f"NOT PROVEN: {', '.join(missing)}" if missing else "every gate fires; no order has left")
