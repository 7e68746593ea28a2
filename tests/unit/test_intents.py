"""What is taken at the door, what is refused, and what counts as the same content."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intents import (
    CancelIntent,
    Intent,
    IntentError,
    OrderIntent,
    SignalIntent,
    canonical,
    content_hash,
    describe,
    from_canonical,
    parse_intent,
)

TRADE = {
    "id": 7,
    "orderId": 8,
    "side": "BUY",
    "price": "60000.10",
    "qty": "0.010",
    "commission": "-0.01",
    "commissionAsset": "USDT",
    "time": 1,
}
ENTRIES = [
    {"account": "cash", "asset": "USDT", "amount": "-5.0"},
    {"account": "fees", "asset": "USDT", "amount": "5"},
]
EVERY_TYPE: list[dict[str, Any]] = [
    {"type": "order", "key": "o", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"},
    {"type": "cancel", "key": "c", "order_key": "o"},
    {"type": "signal", "key": "s", "strategy": "sma", "symbol": "BTCUSDT", "side": "SELL", "quantity": "1"},
    {"type": "position", "key": "p", "venue": "usdm", "symbol": "BTCUSDT", "trade": TRADE},
    {"type": "pnl", "key": "n", "venue": "spot", "symbol": "BTCUSDT", "trade": TRADE},
    {"type": "ledger", "key": "l", "description": "fees", "entries": ENTRIES},
]


GOLDEN: list[tuple[dict[str, Any], str, str]] = [
    (
        {"type": "order", "key": "btc-1", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.0100",
         "order_type": "LIMIT", "price": "20000.50", "valid_for_s": 30, "strategy": "sma"},
        ('{"key":"btc-1","order_type":"LIMIT","price":"20000.5","quantity":"0.01","reduce_only":false,"side":"BUY",'
        '"stop_price":null,"strategy":"sma","symbol":"BTCUSDT","time_in_force":"GTC","type":"order","valid_for_s":30,'
        '"venue":"usdm"}'),
        "87e54f247b7ae5fd38d4ec2d155ce922279ba435f551b6f5069ab10634d19363",
    ),
    (
        {"type": "cancel", "key": "c-1", "order_key": "btc-1"},
        '{"key":"c-1","order_key":"btc-1","type":"cancel"}',
        "cc0453dd7fb9349f2bb2a476ca1f3c2ef309596a72958142467238f0aa73ce95",
    ),
    (
        {"type": "signal", "key": "s-1", "strategy": "sma", "symbol": "BTCUSDT", "side": "SELL", "quantity": "1"},
        ('{"key":"s-1","order_type":"MARKET","price":null,"quantity":"1","reason":"","reduce_only":false,"side":"SELL",'
        '"strategy":"sma","symbol":"BTCUSDT","type":"signal","valid_for_s":null,"venue":"usdm"}'),
        "c9464bfb4d2427533a8814604e26b70a4703a18f4406d2b7d4df1b2977a6664b",
    ),
    (
        {"type": "ledger", "key": "l-1", "description": "a gift", "entries": [
            {"account": "gift", "asset": "USDT", "amount": "5.50"},
            {"account": "cash", "asset": "USDT", "amount": "-5.5"},
        ]},
        ('{"description":"a gift","entries":[{"account":"gift","amount":"5.5","asset":"USDT"},'
        '{"account":"cash","amount":"-5.5","asset":"USDT"}],"key":"l-1","type":"ledger"}'),
        "dfd67b266365097b3a6d882fcb3eab07ca731cffd4fa0dd8960fa8dae207d99a",
    ),
]  # fmt: skip


def order(**fields: object) -> dict[str, object]:
    return {"type": "order", "key": "a", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1", **fields}


def refusal(data: object) -> IntentError:
    with pytest.raises(IntentError) as caught:
        parse_intent(data)
    return caught.value


@pytest.mark.parametrize("data", EVERY_TYPE, ids=lambda data: data["type"])
def test_an_intent_comes_back_unchanged_from_its_canonical_text(data: dict[str, Any]) -> None:
    intent = parse_intent(data)
    assert from_canonical(canonical(intent)) == intent


JSON_VALUES = st.sampled_from(
    [
        None, True, 0, 7, -1, 2**70, 1.5, float("nan"), float("inf"), "", "1", "0.010", "-1", "1e3", "MARKET", "LIMIT",
        "GTC", "GTX", "spot", "usdm", "order", "cancel", "half \ud800", "two\nlines", [], ["1"], [[]], {}, {"id": 1},
        TRADE, {**TRADE, "id": "7"}, ENTRIES, ENTRIES[:1],
    ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        "type",
        "key",
        "venue",
        "order_type",
        "price",
        "quantity",
        "valid_for_s",
        "reduce_only",
        "trade",
        "entries",
        "more",
    ]
)


def told(read: Callable[[], Intent]) -> Intent | str:
    try:
        return read()
    except IntentError as refused:
        return str(refused)


@given(st.sampled_from(EVERY_TYPE), st.dictionaries(FIELDS, JSON_VALUES, max_size=2))
def test_a_text_is_read_as_what_it_says_or_refused_in_the_same_words(
    data: dict[str, Any], damage: dict[str, object]
) -> None:
    text = json.dumps({**data, **damage})
    assert told(lambda: from_canonical(text)) == told(lambda: parse_intent(json.loads(text)))


@pytest.mark.parametrize(("data", "text", "hashed"), GOLDEN, ids=[data["type"] for data, _, _ in GOLDEN])
def test_content_and_its_hash_are_the_same_for_ever(data: dict[str, Any], text: str, hashed: str) -> None:
    """Both are in journals out there: with another text the same intent, submitted again, would be a conflict."""
    made = canonical(parse_intent(data))
    assert (made, content_hash(made)) == (text, hashed)


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=200)
AMOUNTS = st.decimals("-1e15", "1e15", allow_nan=False, places=8).map(lambda amount: format(amount, "f"))


@given(LINES, AMOUNTS)
def test_content_is_sorted_ascii_json_whatever_a_person_writes(words: str, amount: str) -> None:
    """Journals hold hashes of it: it must be, byte for byte, what the library's plainest call writes."""
    entries = [{"account": "a", "asset": "USDT", "amount": one} for one in (amount, format(-Decimal(amount), "f"))]
    intent = parse_intent({"type": "ledger", "key": "l", "description": words, "entries": entries})
    fields = intent.model_dump(mode="json")
    assert canonical(intent) == json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert from_canonical(canonical(intent)) == intent


def test_content_is_the_same_however_it_is_written() -> None:
    one = parse_intent(order(quantity="0.010", price=None, order_type="MARKET"))
    other = parse_intent({**dict(reversed(list(order(quantity="0.01").items())))})
    assert content_hash(canonical(one)) == content_hash(canonical(other))


@pytest.mark.parametrize(
    "change", [{"quantity": "2"}, {"side": "SELL"}, {"venue": "spot"}, {"valid_for_s": 30}, {"strategy": "x"}]
)
def test_content_differs_when_any_field_does(change: dict[str, object]) -> None:
    assert canonical(parse_intent(order())) != canonical(parse_intent(order(**change)))


def test_a_lone_price_of_a_stop_is_its_trigger() -> None:
    by_price = parse_intent(order(order_type="STOP_MARKET", price="50000"))
    by_name = parse_intent(order(order_type="STOP_MARKET", stop_price="50000.0"))
    assert isinstance(by_price, OrderIntent)
    assert (by_price.price, by_price.stop_price) == (None, Decimal(50000))
    assert canonical(by_price) == canonical(by_name)


def test_a_limit_order_is_good_till_canceled_unless_it_says_otherwise() -> None:
    intent = parse_intent(order(order_type="LIMIT", price="1"))
    assert isinstance(intent, OrderIntent)
    assert intent.time_in_force == "GTC"
    assert canonical(intent) == canonical(parse_intent(order(order_type="LIMIT", price="1", time_in_force="GTC")))


def test_gtx_is_for_futures_only() -> None:
    limit = {"order_type": "LIMIT", "price": "1", "time_in_force": "GTX"}
    assert isinstance(parse_intent(order(**limit)), OrderIntent)
    error = refusal(order(**limit, venue="spot"))
    assert (error.field, error.remedy) == ("time_in_force", "use GTC, IOC or FOK, or venue usdm")


@pytest.mark.parametrize(
    ("fields", "is_urgent"),
    [
        ({}, False),
        ({"reduce_only": True}, True),
        ({"order_type": "STOP_MARKET", "stop_price": "1"}, False),
        ({"order_type": "STOP_MARKET", "stop_price": "1", "reduce_only": True}, True),
        ({"order_type": "STOP_MARKET", "stop_price": "1", "venue": "spot"}, False),
        ({"order_type": "STOP_MARKET", "stop_price": "1", "venue": "spot", "side": "SELL"}, True),
        ({"venue": "spot", "side": "SELL"}, False),
    ],
)
def test_what_takes_risk_away_is_urgent(fields: dict[str, object], is_urgent: bool) -> None:
    intent = parse_intent(order(**fields))
    assert isinstance(intent, OrderIntent)
    assert intent.is_urgent is is_urgent


@pytest.mark.parametrize("price", [None, "1"])
def test_a_signal_is_as_consistent_as_the_order_it_becomes(price: str | None) -> None:
    data = {"type": "signal", "key": "s", "strategy": "x", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}
    wrong_type = "LIMIT" if price is None else "MARKET"
    right_type = "MARKET" if price is None else "LIMIT"
    assert refusal({**data, "order_type": wrong_type, "price": price}).field == "price"
    assert isinstance(parse_intent({**data, "order_type": right_type, "price": price}), SignalIntent)


@pytest.mark.parametrize("number", [0.01, 1, 10**400, float("nan"), True, None, [], {}])
def test_only_a_string_is_an_exact_number(number: object) -> None:
    error = refusal(order(quantity=number))
    assert error.field == "quantity"
    assert '"0.010"' in error.remedy


@pytest.mark.parametrize("text", ["1|2|3", "a|b|c", "1e3", "NaN", "٣", "", " 1", "1\n", "--1", "1.", ".1", "9" * 41])
def test_a_wrong_number_is_told_of_by_its_own_field(text: str) -> None:
    error = refusal(order(quantity=text))
    assert (error.field, str(error).startswith("quantity: ")) == ("quantity", True)


@pytest.mark.parametrize("text", ["two\nlines", "nul \x00", "half \ud800", "x" * 201, "escape \x1b[31m"])
def test_words_that_would_break_a_log_or_a_database_are_refused(text: str) -> None:
    assert refusal({**EVERY_TYPE[2], "reason": text}).field == "reason"
    assert refusal({**EVERY_TYPE[5], "description": text}).field == "description"


@pytest.mark.parametrize("number", [-1, 2**63, "7", 7.0, True])
def test_exchange_numbers_fit_the_journal(number: object) -> None:
    assert refusal({**EVERY_TYPE[3], "trade": {**TRADE, "id": number}}).field == "trade.id"


def test_an_unknown_field_is_told_with_the_known_ones_of_its_object() -> None:
    error = refusal({**EVERY_TYPE[3], "trade": {**TRADE, "maker": True}})
    assert error.field == "trade.maker"
    assert error.remedy.startswith("use only id, orderId, ")


@pytest.mark.parametrize("data", [None, [], "order", 7, {}, {"type": None}, {"type": ["order"]}, {"type": "buy"}])
def test_what_is_no_intent_at_all_is_refused(data: object) -> None:
    assert refusal(data).field in {"line", "type"}


@pytest.mark.parametrize("key", ["", "a b", "é", "a\n", "x" * 201, "a/b", 7, None])
def test_a_key_has_a_narrow_alphabet(key: object) -> None:
    assert refusal(order(key=key)).field == "key"


def test_every_error_has_a_remedy() -> None:
    for data in EVERY_TYPE:
        for name in data:
            broken = {**data, name: {"nonsense": 1}}
            error = refusal(broken)
            assert error.remedy not in {"", "correct it"}, json.dumps(broken)


def test_a_cancel_names_its_order() -> None:
    intent = parse_intent(EVERY_TYPE[1])
    assert isinstance(intent, CancelIntent)
    assert intent.order_key == "o"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"type": "order", "key": "sma-1", "symbol": "BTCUSDT", "side": "BUY", "quantity": "0.010"},
            "order BTCUSDT BUY 0.01 MARKET usdm · sma-1",
        ),
        (
            {"type": "order", "key": "x", "symbol": "ETHUSDT", "side": "SELL", "quantity": "2", "venue": "usdm",
             "order_type": "STOP_MARKET", "stop_price": "2900.50", "reduce_only": True},
            "order ETHUSDT SELL 2 STOP_MARKET at 2900.5 reduce-only usdm · x",
        ),
        ({"type": "cancel", "key": "c", "order_key": "sma-1"}, "cancel of sma-1 · c"),
        ({"type": "ledger", "key": "l", "description": "fees", "entries": ENTRIES}, "ledger fees · l"),
    ],
)  # fmt: skip
def test_a_description_says_symbol_side_quantity_and_key(fields: dict[str, object], line: str) -> None:
    assert describe(canonical(parse_intent(fields))) == line


@pytest.mark.parametrize("fields", EVERY_TYPE)
def test_every_type_has_a_description_in_one_line(fields: dict[str, object]) -> None:
    line = describe(canonical(parse_intent(fields)))
    assert line.startswith(f"{fields['type']} ")
    assert line.endswith(f" · {fields['key']}")
    assert "\n" not in line
    assert "None" not in line
