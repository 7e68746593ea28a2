"""Replies of Binance in trouble, word for word, for fault schedules.

Source: "HTTP 503 Status: Message Variants & Handling" and the error code pages of Binance's documentation.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from app.exchange.paper.wire import Reply


class CannedReply(StrEnum):
    """Names of ready-made replies."""

    UNKNOWN_503 = "503_unknown"
    UNKNOWN_503_NO_CODE = "503_unknown_no_code"
    UNAVAILABLE_503 = "503_unavailable"
    DISCONNECTED_503 = "503_disconnected_1001"
    THROTTLED_1008 = "503_throttled_1008"
    BUSY_1008 = "503_busy_1008"
    UNEXPECTED_1006 = "unexpected_1006"
    TIMEOUT_1007 = "timeout_1007"
    TIMEOUT_408 = "timeout_408"
    UNKNOWN_1000 = "unknown_1000"
    DISCONNECTED_1001 = "disconnected_1001"
    TIMESTAMP_1021 = "timestamp_1021"
    TOO_MANY_ORDERS_1015 = "too_many_orders_1015"
    RATE_LIMITED_429 = "rate_limited_429"
    BANNED_418 = "banned_418"
    HTML_403 = "html_403"
    HTML_502 = "html_502"
    HTML_504 = "html_504"
    EMPTY_503 = "empty_503"
    REDIRECT_307 = "redirect_307"
    ERROR_IN_200 = "error_in_200"
    EMPTY_200 = "empty_200"
    NULL_503 = "null_503"


_BAN_S = 120
_UNKNOWN = "Unknown error, please check your request or try again later."
_DISCONNECTED = "Internal error; unable to process your request. Please try again."
_ERRORS: dict[CannedReply, tuple[int, int, str]] = {
    CannedReply.UNKNOWN_503: (503, -1000, _UNKNOWN),
    CannedReply.DISCONNECTED_503: (503, -1001, _DISCONNECTED),
    CannedReply.THROTTLED_1008: (
        503,
        -1008,
        "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again.",
    ),
    CannedReply.BUSY_1008: (
        503,
        -1008,
        "Server is currently overloaded with other requests. Please try again in a few minutes.",
    ),
    CannedReply.UNEXPECTED_1006: (
        500,
        -1006,
        "An unexpected response was received from the message bus. Execution status unknown.",
    ),
    CannedReply.TIMEOUT_1007: (
        503,
        -1007,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    ),
    CannedReply.TIMEOUT_408: (
        408,
        -1007,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    ),
    CannedReply.UNKNOWN_1000: (400, -1000, "An unknown error occured while processing the request."),
    CannedReply.DISCONNECTED_1001: (500, -1001, _DISCONNECTED),
    CannedReply.TIMESTAMP_1021: (400, -1021, "Timestamp for this request is outside of the recvWindow."),
    CannedReply.TOO_MANY_ORDERS_1015: (429, -1015, "Too many new orders; current limit is 300 orders per 10 SECOND."),
    CannedReply.RATE_LIMITED_429: (
        429,
        -1003,
        "Too many requests; current limit of IP(127.0.0.1) is 2400 requests per minute.",
    ),
    CannedReply.ERROR_IN_200: (
        200,
        -1007,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    ),
}
_RETRY_AFTER = {CannedReply.TOO_MANY_ORDERS_1015: "10", CannedReply.RATE_LIMITED_429: "30"}
_HTML: dict[CannedReply, tuple[int, str]] = {
    CannedReply.HTML_403: (403, "<html><head><title>403 Forbidden</title></head><body>WAF</body></html>"),
    CannedReply.HTML_502: (502, "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"),
    CannedReply.HTML_504: (504, "<html><head><title>504 Gateway Time-out</title></head><body>nginx</body></html>"),
    CannedReply.EMPTY_503: (503, ""),
}


def canned(name: CannedReply, path: str, now_ms: int) -> Reply:
    """The reply with this name; ``path`` and exchange time go into those that quote them."""
    if name in _HTML:
        status, page = _HTML[name]
        return Reply(status=status, body=page.encode(), content_type="text/html")
    if name in _ERRORS:
        status, code, message = _ERRORS[name]
        headers = (("Retry-After", _RETRY_AFTER[name]),) if name in _RETRY_AFTER else ()
        return json_reply({"code": code, "msg": message}, status=status, headers=headers)
    if name is CannedReply.UNKNOWN_503_NO_CODE:
        return json_reply({"timestamp": now_ms, "path": path, "msg": _UNKNOWN}, status=503)
    if name is CannedReply.UNAVAILABLE_503:
        return json_reply({"msg": "Service Unavailable."}, status=503)
    if name is CannedReply.BANNED_418:
        until = now_ms + _BAN_S * 1000
        message = (
            f"Way too much request weight used; IP banned until {until}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
        return json_reply({"code": -1003, "msg": message}, status=418, headers=(("Retry-After", str(_BAN_S)),))
    if name is CannedReply.REDIRECT_307:
        return Reply(status=307, body=b"", headers=(("Location", path),))
    return Reply(status=503, body=b"null") if name is CannedReply.NULL_503 else Reply(body=b"")


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def json_reply(body: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A reply with a JSON body."""
    return Reply(status=status, body=_ENCODER.encode(body).encode(), headers=headers)
