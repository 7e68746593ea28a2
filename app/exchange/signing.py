"""From a pinned request to the exact bytes on the wire, and their signature and hash.

Binance verifies an HMAC over the text it receives. python-binance signs unencoded values and then form-encodes them, so
a value with `:` or `/` gets a wrong signature. Here the text is built once, signed and sent unchanged, and only values
that need no encoding are let through.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from app.exchange.models import PinnedCancel, PinnedOrder
from app.job_safety.outcome import Venue
from app.money import wire

Parameters = Mapping[str, str]

_SAFE_VALUE: Final = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)
_SAFE_VALUES: Final = re.compile(r"[A-Za-z0-9._~-]+(?:&[A-Za-z0-9._~-]+)*", re.ASCII)
_SPOT_CONDITIONAL: Final = {"STOP_MARKET": "STOP_LOSS", "TAKE_PROFIT_MARKET": "TAKE_PROFIT"}


def order_parameters(order: PinnedOrder) -> dict[str, str]:
    """Return every parameter of the placement, the pinned timestamp and window included, without the signature.

    The reply type asks for the result of the matching (futures) or its fills (Spot), so that most orders are settled by
    their own answer.
    """
    parameters = {
        "symbol": order.symbol,
        "side": order.side,
        "type": order.order_type,
        "quantity": wire(order.quantity),
        "timestamp": str(order.timestamp_ms),
        "recvWindow": str(order.recv_window_ms),
    }
    if order.price is not None:
        parameters["price"] = wire(order.price)
    if order.time_in_force is not None:
        parameters["timeInForce"] = order.time_in_force
    if order.reduce_only:
        parameters["reduceOnly"] = "true"
    if order.is_algo:
        parameters["algoType"] = "CONDITIONAL"
        parameters["clientAlgoId"] = order.client_order_id
        parameters["triggerPrice"] = _needed("stop_price", order)
        return parameters
    parameters["newClientOrderId"] = order.client_order_id
    parameters["newOrderRespType"] = "FULL" if order.venue is Venue.SPOT else "RESULT"
    if order.is_conditional:
        parameters["type"] = _SPOT_CONDITIONAL[order.order_type]
        parameters["stopPrice"] = _needed("stop_price", order)
    return parameters


def cancel_parameters(cancel: PinnedCancel) -> dict[str, str]:
    """Return every parameter of the cancel, without the signature.

    Spot replaces the canceled order's client id by `newClientOrderId`, random unless given: the original is sent, so
    that the order can still be found by it. The order id is preferred where both are known: it names one order.
    """
    parameters = {"timestamp": str(cancel.timestamp_ms), "recvWindow": str(cancel.recv_window_ms)}
    by_number, by_name = ("algoId", "clientAlgoId") if cancel.is_algo else ("orderId", "origClientOrderId")
    if not cancel.is_algo:
        parameters["symbol"] = cancel.symbol
    if cancel.order_id is not None:
        parameters[by_number] = str(cancel.order_id)
    elif cancel.client_order_id is not None:
        parameters[by_name] = cancel.client_order_id
    if cancel.venue is Venue.SPOT and cancel.client_order_id is not None:
        parameters["newClientOrderId"] = cancel.client_order_id
    return parameters


def canonical(parameters: Parameters) -> str:
    """Return `a=1&b=2…`, sorted by name: the text that is signed and sent, byte for byte.

    Raises:
        ValueError: a value would need URL encoding, and what is signed would differ from what is verified.
    """
    values = "&".join(parameters.values())
    if not _SAFE_VALUES.fullmatch(values) or values.count("&") != len(parameters) - 1:
        _refuse_unsafe(parameters)
    return "&".join([f"{name}={parameters[name]}" for name in sorted(parameters)])


def _refuse_unsafe(parameters: Parameters) -> None:
    for name, value in parameters.items():
        if not _SAFE_VALUE.fullmatch(value):
            raise ValueError(f"{name}: {value[:50]!r} has characters outside of letters, digits, '.', '_', '~' and '-'")


def signed(payload: str, api_secret: str) -> str:
    """Return `payload` with its HMAC-SHA256 signature as the last parameter.

    Raises:
        ValueError: there is no secret to sign with.
    """
    if not api_secret:
        raise ValueError("api_secret: empty, so nothing can be signed; set BINANCE_API_SECRET")
    signature = hmac.digest(api_secret.encode(), payload.encode("ascii"), "sha256").hex()
    return f"{payload}&signature={signature}" if payload else f"signature={signature}"


def payload_hash(request: PinnedOrder | PinnedCancel) -> str:
    """Return the SHA-256 of what this request will ask of which endpoint, for the journal (hex)."""
    if isinstance(request, PinnedOrder):
        method, is_algo, parameters = "POST", request.is_algo, order_parameters(request)
    else:
        method, is_algo, parameters = "DELETE", request.is_algo, cancel_parameters(request)
    endpoint = "algoOrder" if is_algo else "order"
    return hashlib.sha256(f"{request.venue} {method} {endpoint}\n{canonical(parameters)}".encode("ascii")).hexdigest()


def _needed(name: str, order: PinnedOrder) -> str:
    if order.stop_price is None:
        raise ValueError(f"{name}: missing")
    return wire(order.stop_price)
