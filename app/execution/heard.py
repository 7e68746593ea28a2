"""What one attempt has shown of the exchange, kept from its answer until the guard's completion tells it to all."""

from dataclasses import dataclass

from app.execution.context import ExecutionContext
from app.job_safety.circuit_breaker import Ticket
from app.job_safety.outcome import Venue
from app.job_safety.side_effect_guard import Told


@dataclass(slots=True, kw_only=True)
class Heard:
    """Filled in as soon as there is an answer, so that a journal that fails afterwards does not hide it.

    `weight` is 0 for a success, the weight of a failure, and None while nothing was learned.
    """

    venue: Venue
    ticket: Ticket | None
    call: str = ""
    weight: int | None = None

    @property
    def permit(self) -> Told | None:
        """What a renewal of the lease must name: the ticket of a probe, whose permit lives by it."""
        is_probe = self.ticket is not None and self.ticket.is_probe
        return Told(venue=self.venue, ticket=self.ticket) if is_probe else None

    def told(self, context: ExecutionContext) -> Told:
        """Return what to tell: the circuit's part, and what the headers said meanwhile."""
        return Told(
            venue=self.venue,
            ticket=self.ticket,
            member=self.call,
            weight=self.weight,
            seen=context.rate.take_seen(self.venue),
        )


def call_name(key: str, attempt: int) -> str:
    """Return what names one attempt for ever: a circuit counts it once, whoever tells of it."""
    return f"{key}#{attempt}"
