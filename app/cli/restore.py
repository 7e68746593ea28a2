"""`fillonce restore`: a backup in the journal's place becomes fit to trade."""

from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.output import iso, say


def restore(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, and which backup; kept in the audit trail.")],
    by: Annotated[str, typer.Option("--by", help="Who; kept in the audit trail.")],
) -> None:
    """Make a journal that was restored from a backup fit to trade, before anything else starts on it.

    It does not restore anything: put the backup in place first, with every process stopped. Then this holds the kill
    switch at HALT and begins a new epoch, so that every order is looked up at the exchange before it is sent: what was
    sent after the backup was made is found, and not sent again. Saying it twice is safe.

    Exit code: 0 done, 1 processes of this account are running, 3 a store or the exchange does not answer.

    Example:
      fillonce restore --reason "disk lost; dump of 02:00" --by anna
    """
    from app.cli.opening import installation  # lazy: --help needs no database
    from app.composition import compose
    from app.execution.restored import StillRunningError, begin_epoch

    if not reason.strip() or not by.strip():
        raise typer.BadParameter("say why and who: the audit trail keeps it", param_hint="--reason, --by")
    with installation() as opened:
        try:
            done = begin_epoch(compose(opened, f"person-{by.strip()}"), by=by.strip(), reason=reason.strip())
        except StillRunningError as error:
            say(str(error))
            raise typer.Exit(exit_codes.FAILED) from error
    say(f"HALT, and epoch {done.epoch} begins, as of {iso(done.restored_at_ms)}")
    say(f"{done.sendable} orders could be sent and are looked up first; {done.doubtful} are in doubt")
    say("next: start the system; it takes in what the exchange has done since the backup")
    say("then: have producers submit again, under the same keys, what they submitted after the backup")
    say("then: `fillonce ledger check`, and `fillonce kill-switch off --reason … --by …`")
