"""The only way to the exchange: places and cancels what was pinned, once, and tells with what certainty.

A placement is one request, sent once with the timestamp that the journal holds. Whatever becomes of it is a value:
`NotSent`, `Refused`, `Accepted` or `Unknown`. Everything that is only asked comes from `ExchangeQueries`.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from app.exchange import answers
from app.exchange.answers import JsonObject
from app.exchange.errors import AnswerShapeError, unreadable
from app.exchange.models import CancelAccepted, CancelOutcome, PinnedCancel, PinnedOrder
from app.exchange.queries import ExchangeQueries
from app.exchange.signing import cancel_parameters, order_parameters
from app.exchange.transport import RawAnswer, TransportError
from app.job_safety.failure_classifier import Method, classify_answer, classify_transport
from app.job_safety.failure_row import SUCCESS
from app.job_safety.outcome import Accepted, Certainty, Failure, NotSent, Outcome, Refused, Unknown, Venue

REPLY_NOT_OURS: Final = "reply_without_our_order"
"""The rule of an answer that looks like a success but does not prove one."""

_Taken = TypeVar("_Taken", Accepted, CancelAccepted)


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
        parameters, read = order_parameters(order), partial(answers.accepted_order, order)
        return self._send(order.venue, "order", endpoint, parameters, read)

    def cancel_order(self, cancel: PinnedCancel) -> CancelOutcome:
        """Send `cancel` once, exactly as pinned.

        -2011 ("Unknown order sent.") is `Unknown`: the order may be filled, canceled or not visible yet. `get_order`
        tells.
        """
        if cancel.is_algo:
            endpoint = "futures_cancel_algo_order"
        else:
            endpoint = "futures_cancel_order" if cancel.venue is Venue.USDM else "cancel_order"
        parameters, read = cancel_parameters(cancel), partial(answers.accepted_cancel, cancel)
        return self._send(cancel.venue, "cancel", endpoint, parameters, read)

    def _send(
        self,
        venue: Venue,
        method: Method,
        endpoint: str,
        parameters: dict[str, str],
        read: Callable[[JsonObject, bytes], _Taken],
    ) -> _Taken | NotSent | Refused | Unknown:
        """Send a request once; return what `read` makes of a successful answer's object and its bytes."""
        try:
            answer = self._channel.call(venue, endpoint, parameters, deadline_s=self._config.outer_deadline_s)
        except TransportError as error:
            return _failed(classify_transport(fault=error.fault, method=method, detail=error.detail))
        except ValueError as error:
            return NotSent(reason=f"the request could not be built: {error}")
        told = _told_without_a_code(answer)
        if told is None:
            failure = classify_answer(
                venue=venue,
                method=method,
                http_status=answer.http_status,
                body=answer.body,
                headers=answer.headers,
                now_ms=self._estimate_ms(venue),
            )
            if failure is not None:
                return _failed(failure)
        try:
            return read(answers.load_object(answer.body) if told is None else told, answer.body)
        except AnswerShapeError as error:
            return Unknown(failure=unreadable(rule=REPLY_NOT_OURS, message=str(error), http_status=answer.http_status))


def _told_without_a_code(answer: RawAnswer) -> JsonObject | None:
    """Return the object of an answer that no row of the failure table is about, so that it is read once; else None."""
    if answer.http_status not in SUCCESS:
        return None
    try:
        told = answers.load_object(answer.body)
    except AnswerShapeError:
        return None
    return None if "code" in told else told


def _failed(failure: Failure) -> NotSent | Refused | Unknown:
    if failure.certainty is Certainty.NOT_SENT:
        return NotSent(failure=failure, reason=failure.message)
    if failure.certainty is Certainty.REFUSED:
        return Refused(failure=failure)
    return Unknown(failure=failure)
