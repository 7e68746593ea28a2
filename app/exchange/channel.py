"""The way to the exchange of one process: session, endpoints, signature, and the limits that answers tell of."""

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Final

from app.clock import Clock
from app.exchange.config import GatewayConfig
from app.exchange.endpoints import Endpoint, endpoint_map
from app.exchange.models import GatewayHeaders
from app.exchange.signing import canonical, signed
from app.exchange.transport import HttpTransport, RawAnswer, TransportError
from app.job_safety.failure_classifier import TransportFault
from app.job_safety.outcome import Venue

_LIMITS: Final = "x-mbx-"
_USED_WEIGHT: Final = "x-mbx-used-weight"
_ORDER_COUNT: Final = "x-mbx-order-count"
# Bounded: `int` refuses to read thousands of digits by a ValueError, and that means "nothing was sent" here.
_INTERVAL: Final = re.compile(r"[0-9]{1,4}[smhd]")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class ExchangeChannel:
    """Calls endpoints by their python-binance names, each call sent once.

    Nothing is opened before the first call, and a process that was forked off opens its own: a shared connection would
    mix two processes' answers. Threads may share a channel; every call carries its own state.
    """

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self._opened_by: int | None = None
        self._opening = threading.Lock()
        self._transport: HttpTransport | None = None
        self._endpoints: Callable[[str], Endpoint] | None = None
        self._api_secret: Callable[[], str] = config.api_secret
        self._deadlines = threading.local()
        self._limits: Mapping[Venue, GatewayHeaders] = {}
        self.on_limits: Callable[[Venue, GatewayHeaders], None] | None = None

    @property
    def limits_seen(self) -> Mapping[Venue, GatewayHeaders]:
        """The rate-limit headers of the last answer of each venue."""
        return self._limits

    def call(self, venue: Venue, name: str, parameters: Mapping[str, str], *, deadline_s: float) -> RawAnswer:
        """Call the endpoint `name` once with exactly `parameters` (signed if the endpoint is).

        Raises:
            TransportError: no whole answer arrived.
            ValueError: the parameters cannot be signed; nothing was sent.
        """
        self._open()
        if self._endpoints is None:
            raise RuntimeError("the channel did not open")
        self._deadlines.left_s = deadline_s
        answer = self._endpoints(name)(**parameters)
        try:
            self._note_limits(venue, _headers_of(answer))
        except Exception as error:
            # Whatever breaks here, the request was sent: a ValueError must not say otherwise.
            raise TransportError(TransportFault.OTHER, f"its limits: {type(error).__name__}: {error}") from error
        return answer

    def _note_limits(self, venue: Venue, headers: GatewayHeaders) -> None:
        self._limits = {**self._limits, venue: headers}
        if self.on_limits is not None:
            self.on_limits(venue, headers)

    def close(self) -> None:
        """Close this process's connections. The next call opens new ones."""
        transport, self._transport, self._endpoints, self._opened_by = self._transport, None, None, None
        if transport is not None:
            transport.close()

    def _open(self) -> None:
        if self._opened_by == os.getpid():
            return
        if self._opened_by is not None:
            # Forked: the lock may have been held by a thread that does not exist here, and the sockets are the
            # parent's. Closing our copies of them does not end the parent's connections.
            self._opening = threading.Lock()
            self.close()
        with self._opening:
            if self._opened_by is not None:
                return
            self._transport = HttpTransport(
                clock=self.clock,
                api_key=self.config.api_key(),
                connect_timeout_s=self.config.connect_timeout_s,
                proxy_url=self.config.proxy_url,
                ca_file=self.config.ca_file,
            )
            self._endpoints = endpoint_map(
                futures_url=self.config.futures_url, spot_url=self.config.spot_url, send=self._send
            )
            self._opened_by = os.getpid()

    def _send(self, *, method: str, url: str, parameters: Mapping[str, str], is_signed: bool) -> RawAnswer:
        if self._transport is None:
            raise RuntimeError("the channel is closed")
        payload = canonical(parameters)
        if is_signed:
            payload = signed(payload, self._api_secret())
        deadline_s: float = self._deadlines.left_s
        return self._transport.send(
            method, url, payload, deadline_s=deadline_s, read_timeout_s=min(deadline_s, self.config.read_timeout_s)
        )


def _headers_of(answer: RawAnswer) -> GatewayHeaders:
    counts: dict[str, dict[str, int]] = {_USED_WEIGHT: {}, _ORDER_COUNT: {}}
    for name, value in answer.headers.items():
        if name.startswith(_LIMITS):
            counter, _, interval = name.rpartition("-")
            if counter in counts and _INTERVAL.fullmatch(interval) and _NUMBER.fullmatch(value):
                counts[counter][interval.upper()] = int(value)
    retry_after = answer.headers.get("retry-after", "")
    return GatewayHeaders(
        used_weight=counts[_USED_WEIGHT],
        order_count=counts[_ORDER_COUNT],
        retry_after_s=int(retry_after) if _NUMBER.fullmatch(retry_after) else None,
        http_status=answer.http_status,
        received_monotonic=answer.received_monotonic,
    )
