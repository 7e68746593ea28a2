"""Who may ask: API key, HMAC-SHA256 signature, timestamp against recvWindow."""

from __future__ import annotations

import hashlib
import hmac

from app.exchange.paper.errors import (
    UNAUTHORIZED,
    PaperError,
    ahead_of_server,
    illegal_characters,
    missing,
    outside_recv_window,
)
from app.exchange.paper.model import Venue
from app.exchange.paper.params import Params
from app.exchange.paper.wire import Request

DEFAULT_RECV_WINDOW_MS = 5000
SPOT_MAX_RECV_WINDOW_MS = 60_000
AHEAD_MS = 1000
_MICROSECONDS_FROM = 10**14


class Authenticator:
    """Checks signed requests of the one account."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        self._api_key = api_key
        self._secret = hmac.new(api_secret.encode(), digestmod=hashlib.sha256)

    def check_key(self, request: Request) -> None:
        """The API key header.

        Raises:
            PaperError: -2014 (absent) or -2015 (wrong), HTTP 401.
        """
        key = request.headers.get("x-mbx-apikey", "")
        if not key:
            raise PaperError(-2014, "API-key format invalid.", UNAUTHORIZED)
        if key != self._api_key:
            raise PaperError(-2015, "Invalid API-key, IP, or permissions for action.", UNAUTHORIZED)

    def check_signature(self, request: Request, params: Params) -> None:
        """The signature over query string and body as they were sent, without the signature itself.

        Raises:
            PaperError: -1102 (absent) or -1022.
        """
        given = params.get("signature")
        if not given:
            raise missing("signature")
        signed = self._secret.copy()
        signed.update((_unsigned(request.query) + _unsigned(request.body.decode("utf-8", "replace"))).encode())
        if not hmac.compare_digest(signed.hexdigest().encode(), given.encode()):
            raise PaperError(-1022, "Signature for this request is not valid.")


def _unsigned(text: str) -> str:
    if "signature=" not in text:
        return text
    return "&".join(pair for pair in text.split("&") if not pair.startswith("signature="))


def expiry_ms(params: Params, venue: Venue, now_ms: int) -> int:
    """Check timestamp and recvWindow at the gateway; returns the last moment the order may be executed.

    Raises:
        PaperError: -1102, -1100, -1131 (Spot: recvWindow above a minute) or -1021.
    """
    stamp = params.get("timestamp")
    if not stamp:
        raise missing("timestamp")
    if not stamp.isdigit():
        raise illegal_characters("timestamp", "^[0-9]{1,20}$")
    timestamp_ms = int(stamp)
    if venue is Venue.SPOT and timestamp_ms >= _MICROSECONDS_FROM:
        timestamp_ms //= 1000
    window_ms = _recv_window_ms(params.get("recvWindow"), venue)
    if timestamp_ms >= now_ms + AHEAD_MS:
        raise ahead_of_server()
    if now_ms - timestamp_ms > window_ms:
        raise outside_recv_window()
    return timestamp_ms + window_ms


def _recv_window_ms(value: str | None, venue: Venue) -> int:
    if not value:
        return DEFAULT_RECV_WINDOW_MS
    whole, dot, fraction = value.partition(".")
    if not whole.isdigit() or (dot and (venue is Venue.FUTURES or not fraction.isdigit() or len(fraction) > 3)):
        raise illegal_characters("recvWindow", "^[0-9]{1,20}$")
    window_ms = int(whole)
    if venue is Venue.SPOT and window_ms > SPOT_MAX_RECV_WINDOW_MS:
        raise PaperError(-1131, "recvWindow must be less than 60000.")
    return window_ms
