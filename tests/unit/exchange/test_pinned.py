"""What may be pinned at all, and that its bytes, signature and hash follow from it alone."""

import hashlib
import hmac
import re
import string
from dataclasses import fields, replace
from decimal import Decimal
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange.models import MAX_RECV_WINDOW_MS, PinnedCancel, PinnedOrder
from app.exchange.signing import cancel_parameters, canonical, order_parameters, payload_hash, signed
from app.job_safety.outcome import Venue

client_ids = st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=1, max_size=36)
amounts = st.decimals(min_value=Decimal("1E-8"), max_value=Decimal("1E9"), places=8).filter(lambda value: value > 0)


@st.composite
def pinned_orders(draw: st.DrawFn) -> PinnedOrder:
    venue = draw(st.sampled_from(Venue))
    order_type = draw(st.sampled_from(["MARKET", "LIMIT", "STOP_MARKET", "TAKE_PROFIT_MARKET"]))
    is_limit = order_type == "LIMIT"
    return PinnedOrder(
        venue=venue,
        symbol=draw(st.sampled_from(["BTCUSDT", "ETHUSDT", "1000PEPEUSDT", "BTCUSDT_260327"])),
        side=draw(st.sampled_from(["BUY", "SELL"])),
        order_type=order_type,
        quantity=draw(amounts),
        client_order_id=draw(client_ids),
        timestamp_ms=draw(st.integers(1, 10**14)),
        recv_window_ms=draw(st.integers(1, MAX_RECV_WINDOW_MS)),
        price=draw(amounts) if is_limit else None,
        time_in_force=draw(st.sampled_from(["GTC", "IOC", "FOK"])) if is_limit else None,
        stop_price=None if order_type in {"MARKET", "LIMIT"} else draw(amounts),
        reduce_only=venue is Venue.USDM and draw(st.booleans()),
    )


ORDER = PinnedOrder(
    venue=Venue.USDM,
    symbol="BTCUSDT",
    side="BUY",
    order_type="MARKET",
    quantity=Decimal("0.010"),
    client_order_id="fo-1",
    timestamp_ms=1_763_500_000_123,
    recv_window_ms=3000,
)


@given(pinned_orders())
def test_every_pinned_order_survives_the_wire_unchanged(order: PinnedOrder) -> None:
    """URL decoding and encoding again is the identity: what is signed is what any server parses and verifies."""
    payload = canonical(order_parameters(order))
    told = dict(parse_qsl(payload, strict_parsing=True))
    assert urlencode(sorted(told.items())) == payload
    assert Decimal(told["quantity"]) == order.quantity
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", told["quantity"])
    assert told["timestamp"] == str(order.timestamp_ms)
    assert told["recvWindow"] == str(order.recv_window_ms)
    assert told["clientAlgoId" if order.is_algo else "newClientOrderId"] == order.client_order_id
    for ours, theirs in (("price", "price"), ("stop_price", "triggerPrice" if order.is_algo else "stopPrice")):
        value = getattr(order, ours)
        assert (Decimal(told[theirs]) if theirs in told else None) == value
    assert told.get("reduceOnly") == ("true" if order.reduce_only else None)


@given(pinned_orders(), st.text(alphabet=string.ascii_letters, min_size=1, max_size=64))
def test_signature_verifies_over_what_a_server_receives(order: PinnedOrder, secret: str) -> None:
    sent = signed(canonical(order_parameters(order)), secret)
    received, _, signature = sent.rpartition("&signature=")
    assert hmac.new(secret.encode(), received.encode(), hashlib.sha256).hexdigest() == signature


@given(pinned_orders(), pinned_orders())
def test_payload_hash_is_equal_exactly_for_equal_requests(one: PinnedOrder, other: PinnedOrder) -> None:
    assert payload_hash(one) == payload_hash(replace(one))
    are_same = (one.venue, order_parameters(one)) == (other.venue, order_parameters(other))
    assert (payload_hash(one) == payload_hash(other)) == are_same


def test_payload_hash_changes_with_every_field() -> None:
    others = {
        "venue": Venue.SPOT,
        "symbol": "ETHUSDT",
        "side": "SELL",
        "quantity": Decimal("0.011"),
        "client_order_id": "fo-2",
        "timestamp_ms": ORDER.timestamp_ms + 1,
        "recv_window_ms": 2999,
        "reduce_only": True,
    }
    hashes = {payload_hash(replace(ORDER, **{name: value})) for name, value in others.items()}
    limit = replace(ORDER, order_type="LIMIT", price=Decimal(1), time_in_force="GTC")
    stop = replace(ORDER, order_type="STOP_MARKET", stop_price=Decimal(1))
    variants = [
        ORDER,
        limit,
        replace(limit, price=Decimal(2)),
        replace(limit, time_in_force="IOC"),
        stop,
        replace(stop, stop_price=Decimal(2)),
        replace(stop, order_type="TAKE_PROFIT_MARKET"),
    ]
    hashes |= {payload_hash(variant) for variant in variants}
    assert len(hashes) == len(others) + len(variants)
    assert set(others) | {"order_type", "price", "stop_price", "time_in_force"} == {one.name for one in fields(ORDER)}


def test_canonical_text_and_hash_never_change() -> None:
    """The journal keeps the hash: another text for the same order would make old rows look tampered with."""
    text = (
        "newClientOrderId=fo-1&newOrderRespType=RESULT&quantity=0.010&recvWindow=3000&side=BUY&symbol=BTCUSDT"
        "&timestamp=1763500000123&type=MARKET"
    )
    assert canonical(order_parameters(ORDER)) == text
    assert payload_hash(ORDER) == hashlib.sha256(f"usdm POST order\n{text}".encode()).hexdigest()


@pytest.mark.parametrize("character", [":", "/", "&", "=", " ", "%", "+", "ä", "\n"])
def test_value_that_would_be_encoded_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="newClientOrderId"):
        canonical({"newClientOrderId": f"a{character}b"})


def test_signing_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="BINANCE_API_SECRET"):
        signed("a=1", "")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"client_order_id": ""}, "client_order_id"),
        ({"client_order_id": "x" * 37}, "client_order_id"),
        ({"client_order_id": "a:b"}, "client_order_id"),
        ({"client_order_id": "a.b"}, "client_order_id"),
        ({"client_order_id": "a\n"}, "client_order_id"),
        ({"client_order_id": "é"}, "client_order_id"),
        ({"symbol": "btcusdt"}, "symbol"),
        ({"symbol": "BTC/USDT"}, "symbol"),
        ({"side": "LONG"}, "side"),
        ({"order_type": "STOP"}, "order_type"),
        ({"quantity": Decimal(0)}, "quantity"),
        ({"quantity": Decimal("NaN")}, "quantity"),
        ({"quantity": 1}, "quantity"),
        ({"price": Decimal(1)}, "price"),
        ({"stop_price": Decimal(1)}, "stop_price"),
        ({"time_in_force": "GTC"}, "time_in_force"),
        ({"order_type": "LIMIT", "time_in_force": "GTC"}, "price"),
        ({"order_type": "LIMIT", "price": Decimal(1)}, "time_in_force"),
        ({"order_type": "LIMIT", "price": Decimal(1), "time_in_force": "GTX", "venue": Venue.SPOT}, "time_in_force"),
        ({"order_type": "STOP_MARKET"}, "stop_price"),
        ({"order_type": "STOP_MARKET", "stop_price": Decimal(-1)}, "stop_price"),
        ({"venue": Venue.SPOT, "reduce_only": True}, "reduce_only"),
        ({"timestamp_ms": 0}, "timestamp_ms"),
        ({"recv_window_ms": 0}, "recv_window_ms"),
        ({"recv_window_ms": MAX_RECV_WINDOW_MS + 1}, "recv_window_ms"),
    ],
)
def test_order_that_cannot_be_right_is_refused_by_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"(^|, ){named}"):
        replace(ORDER, **changes)


CANCEL = PinnedCancel(venue=Venue.USDM, symbol="BTCUSDT", order_id=7, timestamp_ms=1, recv_window_ms=3000)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"order_id": None}, "order_id"),
        ({"order_id": 0}, "order_id"),
        ({"client_order_id": "a/b"}, "client_order_id"),
        ({"venue": Venue.SPOT}, "client_order_id"),
        ({"venue": Venue.SPOT, "client_order_id": "a", "is_algo": True}, "client_order_id"),
    ],
)
def test_cancel_that_cannot_be_right_is_refused_by_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(CANCEL, **changes)


def test_cancel_prefers_the_number_and_spot_keeps_the_name() -> None:
    named = replace(CANCEL, client_order_id="fo-1")
    assert cancel_parameters(named).keys() == {"symbol", "orderId", "timestamp", "recvWindow"}
    assert cancel_parameters(replace(named, order_id=None))["origClientOrderId"] == "fo-1"
    assert cancel_parameters(replace(named, venue=Venue.SPOT))["newClientOrderId"] == "fo-1"
    assert cancel_parameters(replace(named, is_algo=True)).keys() == {"algoId", "timestamp", "recvWindow"}
    assert payload_hash(named) != payload_hash(replace(named, is_algo=True))
