"""How a question is asked: with a fresh timestamp, again if that is sensible, and within one short deadline."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import tenacity

from app.clock import Clock
from app.exchange import answers
from app.exchange.channel import ExchangeChannel
from app.exchange.config import GatewayConfig
from app.exchange.errors import AnswerShapeError, ExchangeClockUnknownError, ExchangeQueryError, unreadable
from app.exchange.exchange_clock import ExchangeClock
from app.exchange.models import GatewayHeaders, ServerTime
from app.exchange.transport import RawAnswer, TransportError
from app.job_safety.failure_classifier import classify_answer, classify_transport
from app.job_safety.outcome import Advice, Failure, Venue

_Read = TypeVar("_Read")


class ExchangeAsker:
    """Asks the exchange and reads its answers.

    Timestamps come from the exchange's own clock, so that a wrong local clock cannot stop reconciliation.
    """

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._channel = ExchangeChannel(config, clock)
        self.exchange_clock = ExchangeClock(self, clock, config.clock_limits)
        self.on_query_failure: Callable[[Venue, Failure], None] | None = None
        """Hears of every answer that refuses a query: a limit that one process meets closes the gate for all."""
        self.before_query: Callable[[Venue, str, Mapping[str, str]], Failure | None] | None = None
        """Asked before every query is sent; what it returns stands for the answer, and nothing is sent."""

    @property
    def limits_seen(self) -> Mapping[Venue, GatewayHeaders]:
        """The rate-limit headers of the last answer of each venue."""
        return self._channel.limits_seen

    def on_limits(self, hear: Callable[[Venue, GatewayHeaders], None]) -> None:
        """Have `hear` called with the rate-limit headers of every answer."""
        self._channel.on_limits = hear

    def close(self) -> None:
        """Close this process's connections. The next request opens new ones."""
        self._channel.close()

    def server_time(self, venue: Venue) -> ServerTime:
        """Ask the venue for its time now, with our monotonic times around the answer."""
        return self._ask(
            venue,
            "futures_time" if venue is Venue.USDM else "get_server_time",
            {},
            lambda answer: ServerTime(
                venue=venue,
                server_time_ms=answers.integer(answers.load_object(answer.body), "serverTime"),
                sent_monotonic=answer.sent_monotonic,
                received_monotonic=answer.received_monotonic,
            ),
            is_signed=False,
            deadline_s=self._config.time_deadline_s,
        )

    def _ask(
        self,
        venue: Venue,
        endpoint: str,
        parameters: Mapping[str, str],
        read: Callable[[RawAnswer], _Read],
        *,
        is_signed: bool = True,
        deadline_s: float | None = None,
        codes_400: frozenset[int] = frozenset(),
    ) -> _Read:
        """Ask until an answer is read, a failure is not worth another try, or time is up."""
        until = self._clock.monotonic() + (deadline_s or self._config.query_deadline_s)
        retrying = tenacity.Retrying(
            stop=lambda state: state.attempt_number >= self._config.query_tries or self._clock.monotonic() >= until,
            wait=tenacity.wait_exponential(multiplier=0.1, max=1.0) + tenacity.wait_random(0, 0.1),
            retry=tenacity.retry_if_exception(_is_worth_another_try),
            sleep=lambda pause_s: self._clock.sleep(max(0.0, min(float(pause_s), until - self._clock.monotonic()))),
            reraise=True,
        )

        def once() -> _Read:
            sent = {**parameters, **self._fresh_timestamp(venue, endpoint)} if is_signed else parameters
            left_s = max(until - self._clock.monotonic(), 0.001)
            return self._ask_once(venue, endpoint, sent, read, deadline_s=left_s, codes_400=codes_400)

        return retrying(once)

    def _ask_once(
        self,
        venue: Venue,
        endpoint: str,
        parameters: Mapping[str, str],
        read: Callable[[RawAnswer], _Read],
        *,
        deadline_s: float,
        codes_400: frozenset[int],
    ) -> _Read:
        if self.before_query is not None and (held_back := self.before_query(venue, endpoint, parameters)) is not None:
            raise ExchangeQueryError(held_back, endpoint)
        try:
            answer = self._channel.call(venue, endpoint, parameters, deadline_s=deadline_s)
        except TransportError as error:
            failure = classify_transport(fault=error.fault, method="query", detail=error.detail)
            raise ExchangeQueryError(failure, endpoint) from error
        if not _is_expected_refusal(answer, codes_400):
            refusal = classify_answer(
                venue=venue,
                method="query",
                http_status=answer.http_status,
                body=answer.body,
                headers=answer.headers,
                now_ms=self._estimate_ms(venue),
            )
            if refusal is not None:
                if refusal.code == -1021:
                    self.exchange_clock.forget(venue)
                if self.on_query_failure is not None:
                    self.on_query_failure(venue, refusal)
                raise ExchangeQueryError(refusal, endpoint)
        try:
            return read(answer)
        except AnswerShapeError as error:
            raise ExchangeQueryError(_unreadable_query(error, answer), endpoint) from error

    def _fresh_timestamp(self, venue: Venue, endpoint: str) -> dict[str, str]:
        try:
            timestamp_ms = self.exchange_clock.lower_bound_ms(venue)
        except ExchangeClockUnknownError as error:
            cause = error.__cause__
            failure = unreadable(rule="exchange_clock_unknown", message=str(error), advice=Advice.RETRY_AFTER_DELAY)
            raise ExchangeQueryError(
                cause.failure if isinstance(cause, ExchangeQueryError) else failure, endpoint
            ) from error
        return {"timestamp": str(timestamp_ms), "recvWindow": str(self._config.recv_window_ms)}

    def _now_ms(self, venue: Venue) -> int:
        self._fresh_timestamp(venue, "time")
        return self.exchange_clock.upper_bound_ms(venue)

    def _estimate_ms(self, venue: Venue) -> int:
        known = self.exchange_clock.estimate_ms(venue)
        return self._clock.now_ms() if known is None else known


def _is_expected_refusal(answer: RawAnswer, codes: frozenset[int]) -> bool:
    if not codes or answer.http_status != 400:
        return False
    try:
        return answers.load_object(answer.body).get("code") in codes
    except AnswerShapeError:
        return False


def _is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, ExchangeQueryError) and error.failure.advice is Advice.RETRY_AFTER_DELAY


def _unreadable_query(error: AnswerShapeError, answer: RawAnswer) -> Failure:
    return unreadable(
        rule="unreadable_answer", message=str(error), http_status=answer.http_status, advice=Advice.RETRY_AFTER_DELAY
    )
