"""Opens the books of both venues as soon as that is safe, so that the first order need not wait for it."""

from typing import Final

from app.execution import opening
from app.execution.context import ExecutionContext
from app.execution.open_alone import OpeningElsewhereError, open_alone
from app.job_safety.errors import RetryableError, StoreUnavailableError
from app.job_safety.outcome import Venue

FAILED_AGAIN_S: Final = 30.0
"""After how long a venue is tried again that did not answer, or could not be opened."""
ELSEWHERE_AGAIN_S: Final = 1.0
"""After how long it is looked whether another process, which reads the account now, has opened it."""


class Opener:
    """Watches the accounts whose books are not open yet. A venue that cannot be opened does not stop the other."""

    def __init__(self, context: ExecutionContext) -> None:
        self._context = context
        self._due = dict.fromkeys(Venue, 0.0)

    def step(self) -> None:
        """Look at every venue that is due, never waiting for long.

        Raises:
            StoreUnavailableError: the journal does not answer.
        """
        for venue in [venue for venue, due in self._due.items() if self._context.clock.monotonic() >= due]:
            again_s = self._open(venue)
            if again_s is None:
                del self._due[venue]
            else:
                self._due[venue] = self._context.clock.monotonic() + again_s

    def _open(self, venue: Venue) -> float | None:
        """Return in how many seconds to try again; None: the books are open."""
        record = self._context.record
        try:
            open_alone(self._context, venue)
        except StoreUnavailableError:
            raise
        except opening.AccountMovesError as error:
            record.event("venue_is_watched", count=False, venue=venue.value, why=str(error))
            return error.for_ms / 1000
        except OpeningElsewhereError:
            return ELSEWHERE_AGAIN_S
        except RetryableError as error:
            record.event("venue_not_opened", level="warning", venue=venue.value, error=str(error))
        except Exception as error:  # noqa: BLE001 - one venue that cannot be opened must not stop the other
            record.alarm("venue_not_opened", venue=venue.value, error=f"{type(error).__name__}: {error}")
        else:
            return None
        return FAILED_AGAIN_S
