"""One process at a time opens a venue: many that read the account at once use up its request weight, and none ends."""

import contextlib

from app.execution import opening
from app.execution.context import ExecutionContext
from app.job_safety.admission import Admitted, EffectKind
from app.job_safety.errors import RetryableError, StoreUnavailableError
from app.job_safety.outcome import Venue


class OpeningElsewhereError(RetryableError):
    """Another process reads the account now; its result is waited for."""


def open_alone(context: ExecutionContext, venue: Venue) -> bool:
    """Do as `opening.ensure_open`, unless another process is at it.

    Without Redis nobody can be asked to wait; opening twice books once.

    Raises:
        OpeningElsewhereError: another process is at it.
        RetryableError: as `opening.ensure_open`.
    """
    with context.journal.read() as connection:
        if context.books.is_open(connection, venue):
            return False
    try:
        answer = context.admission.ask("opening", venue.value, kind=EffectKind.BOOK, distrust_done=True)
    except StoreUnavailableError:
        return opening.ensure_open(context, venue)
    if not isinstance(answer, Admitted):
        raise OpeningElsewhereError(f"{venue}: another process reads the account")
    try:
        with context.leases.keep("opening", venue.value, answer.token):
            return opening.ensure_open(context, venue)
    finally:
        with contextlib.suppress(StoreUnavailableError):
            context.guard.release("opening", venue.value, answer.token)
