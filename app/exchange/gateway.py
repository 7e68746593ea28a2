"""The only way to the exchange: places and cancels what was pinned, once, and tells with what certainty.

A placement is one request, sent once with the timestamp that the journal holds. Whatever becomes of it is a value:
`NotSent`, `Refused`, `Accepted` or `Unknown`. Everything that is only asked comes from `ExchangeQueries`.
"""

from typing import Final

from app.exchange import answers
from app.exchange.errors import AnswerShapeError, unreadable
from app.exchange.models import CancelAccepted, CancelOutcome, PinnedCancel, PinnedOrder
from app.exchange.queries import ExchangeQueries
from app.exchange.signing import cancel_parameters, order_parameters
from app.exchange.transport import RawAnswer, TransportError
from app.job_safety.failure_classifier import Method, classify_answer, classify_transport
from app.job_safety.outcome import Accepted, Certainty, Failure, NotSent, Outcome, Refused, Unknown, Venue

REPLY_NOT_OURS: Final = "reply_without_our_order"
"""The rule of an answer that looks like a success but does not prove one."""


class ExchangeGateway(ExchangeQueries):
    """Sends what was pinned and asks what became of it. Lazy, and safe to use from threads and after a fork."""

    def place_order(self, order: PinnedOrder) -> Outcome:
        """Send `order` once, exactly as pinned.

        Returns:
            `Accepted` only for an answer with an integer order id, our client order id and our symbol; `NotSent` and
            `Refused` only where it is documented or certain that nothing was executed; otherwise `Unknown`.
        """
        if order.is_algo:
            endpoint = "futures_create_algo_order"
        else:
            endpoint = "futures_create_order" if order.venue is Venue.USDM else "create_order"
        answer = self._send(order.venue, "order", endpoint, order_parameters(order))
        if not isinstance(answer, RawAnswer):
            return answer
        try:
            accepted: Accepted = answers.accepted_order(order, answer.body)
        except AnswerShapeError as error:
            return Unknown(failure=unreadable(rule=REPLY_NOT_OURS, message=str(error), http_status=answer.http_status))
        return accepted

    def cancel_order(self, cancel: PinnedCancel) -> CancelOutcome:
        """Send `cancel` once, exactly as pinned.

        -2011 ("Unknown order sent.") is `Unknown`: the order may be filled, canceled or not visible yet. `get_order`
        tells.
        """
        if cancel.is_algo:
            endpoint = "futures_cancel_algo_order"
        else:
            endpoint = "futures_cancel_order" if cancel.venue is Venue.USDM else "cancel_order"
        answer = self._send(cancel.venue, "cancel", endpoint, cancel_parameters(cancel))
        if not isinstance(answer, RawAnswer):
            return answer
        try:
            accepted: CancelAccepted = answers.accepted_cancel(cancel, answer.body)
        except AnswerShapeError as error:
            return Unknown(failure=unreadable(rule=REPLY_NOT_OURS, message=str(error), http_status=answer.http_status))
        return accepted

    def _send(
        self, venue: Venue, method: Method, endpoint: str, parameters: dict[str, str]
    ) -> RawAnswer | NotSent | Refused | Unknown:
        try:
            answer = self._channel.call(venue, endpoint, parameters, deadline_s=self._config.outer_deadline_s)
        except TransportError as error:
            return _failed(classify_transport(fault=error.fault, method=method, detail=error.detail))
        except ValueError as error:
            return NotSent(reason=f"the request could not be built: {error}")
        failure = classify_answer(
            venue=venue,
            method=method,
            http_status=answer.http_status,
            body=answer.body,
            headers=answer.headers,
            now_ms=self._estimate_ms(venue),
        )
        return answer if failure is None else _failed(failure)


def _failed(failure: Failure) -> NotSent | Refused | Unknown:
    if failure.certainty is Certainty.NOT_SENT:
        return NotSent(failure=failure, reason=failure.message)
    if failure.certainty is Certainty.REFUSED:
        return Refused(failure=failure)
    return Unknown(failure=failure)
