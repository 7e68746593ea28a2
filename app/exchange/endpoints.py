"""python-binance as a map from names to endpoints, and nothing more.

Its client overwrites `timestamp` and `recvWindow`, invents ids, follows redirects, returns error bodies as data, loses
answers while parsing errors and shares one response between threads (docs/adr/0004). So `_request`, through which all
of its endpoint methods go, is replaced: it hands method, address and untouched parameters to the caller's `send`.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from app.exchange.transport import RawAnswer


class SendEndpoint(Protocol):
    """What carries out one call of an endpoint method."""

    def __call__(self, *, method: str, url: str, parameters: Mapping[str, str], is_signed: bool) -> RawAnswer:
        """Send one request to `url` once, and return its answer."""
        ...


Endpoint = Callable[..., RawAnswer]


def endpoint_map(*, futures_url: str, spot_url: str, send: SendEndpoint) -> Callable[[str], Endpoint]:
    """Return a function from the name of a python-binance method to that method, sending through `send`.

    The library is imported here, not at the top: it costs half a second and its websocket parts warn on import.

    Args:
        futures_url: USD-M base address, ending in `/fapi`; the library appends version and path.
        spot_url: Spot base address, ending in `/api`.
        send: Carries out the calls.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from binance.client import Client

    class EndpointMap(Client):
        API_URL = spot_url
        FUTURES_URL = futures_url

        def __init__(self) -> None:
            # Not the base's constructor: it opens an asyncio event loop (three descriptors that a fork would share)
            # and a second HTTP session. The address methods need these three and the class attributes only.
            self.tld = "com"
            self.testnet = False
            self.demo = False

        def __del__(self) -> None:
            """Leave the base's session alone: there is none."""

        def _request(self, method: str, uri: str, signed: bool, force_params: bool = False, **kwargs: Any) -> RawAnswer:  # noqa: ARG002, FBT001, FBT002 - the base's signature
            return send(method=method.upper(), url=uri, parameters=kwargs.get("data") or {}, is_signed=signed)

    return partial(getattr, EndpointMap())
