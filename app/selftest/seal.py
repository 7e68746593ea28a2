"""What keeps every order of a self test on this machine, whichever gate is broken.

Two walls stand behind the gates. The last step of the transaction that would write DISPATCHED raises, so that it is
rolled back; without a committed DISPATCHED no request is ever made, by this process or by one that takes over after its
death. And the gateway of this process has no way to place or cancel: it answers NotSent.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.exchange.gateway import ExchangeGateway
from app.exchange.models import CancelOutcome, PinnedCancel, PinnedOrder
from app.job_safety.faults import FaultPoint, Faults
from app.job_safety.outcome import NotSent, Outcome


class PassedEveryGateError(Exception):
    """An order of a self test came where it would have been dispatched. Nothing was written or sent."""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(Faults):
    """Stops what has passed every gate. `after_admission` is done between the two places where gates are."""

    after_admission: Callable[[], object] = nothing

    def may_strike(self, point: FaultPoint) -> bool:
        """Return that it does wherever an order can get."""
        del point
        return True

    def hit(self, point: FaultPoint) -> None:
        """Act after admission; raise where the order would be dispatched, and at every point behind that.

        Raises:
            PassedEveryGateError: it got that far.
        """
        Faults.hit(self, point)
        if point is FaultPoint.AFTER_ADMISSION:
            self.after_admission()
        elif point is not FaultPoint.BEFORE_ADMISSION:
            raise PassedEveryGateError(point.value)


class SealedGateway(ExchangeGateway):
    """Asks as every gateway does, and sends nothing that changes anything."""

    def place_order(self, order: PinnedOrder) -> Outcome:
        """Send nothing."""
        return NotSent(reason=f"a self test sends nothing: {order.client_order_id}")

    def cancel_order(self, cancel: PinnedCancel) -> CancelOutcome:
        """Send nothing."""
        return NotSent(reason=f"a self test sends nothing: {cancel.symbol}")
