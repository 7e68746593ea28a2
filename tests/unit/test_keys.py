"""Names that follow from an intent and nothing else. What is pinned here must never change: orders carry it."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.job_safety.keys import (
    CLIENT_ORDER_ID_MAX,
    CLIENT_ORDER_ID_PREFIX,
    client_order_id,
    digest,
    guard_key,
    is_key,
    job_id,
)

KEYS = st.text("abcXYZ019._:-", min_size=1, max_size=200)
LABELS = st.text("abcXYZ019_-", min_size=1, max_size=16)


def test_client_order_id_is_the_same_for_ever() -> None:
    """An id that changed with a release would buy again whatever was open across it."""
    assert client_order_id(account="main", mode="paper", key="btc-1") == "fo-vadypw42wlcfxt7fsx4n2t7ppuc6"


def test_job_id_is_the_same_for_ever() -> None:
    assert job_id(account="main", mode="paper", intent_type="order", key="btc-1") == (
        "order-vkauy45lxdmszmj2g6ktpbqdxuba"
    )


def test_guard_key_is_readable() -> None:
    name = guard_key(namespace="idempotency:effect", account="main", mode="paper", intent_type="order", key="btc-1")
    assert name == "idempotency:effect:paper:main:order:btc-1"


@given(account=LABELS, mode=st.sampled_from(("paper", "testnet", "live")), key=KEYS)
@pytest.mark.parametrize("leg", [None, "L", "M"])
def test_client_order_id_is_one_that_both_venues_take(leg: str | None, account: str, mode: str, key: str) -> None:
    made = client_order_id(account=account, mode=mode, key=key, leg=leg)
    assert re.fullmatch(r"[a-zA-Z0-9-_]{1,36}", made)
    assert len(made) <= CLIENT_ORDER_ID_MAX
    assert made.startswith(CLIENT_ORDER_ID_PREFIX)


@given(KEYS)
def test_job_id_is_one_that_rq_takes(key: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", job_id(account="main", mode="paper", intent_type="order", key=key))


@given(st.lists(st.tuples(LABELS, LABELS, KEYS), min_size=2, max_size=20, unique=True))
def test_different_intents_have_different_client_order_ids(intents: list[tuple[str, str, str]]) -> None:
    made = {client_order_id(account=account, mode=mode, key=key) for account, mode, key in intents}
    assert len(made) == len(intents)


def test_every_part_of_an_intents_name_counts() -> None:
    same = {"account": "main", "mode": "paper", "key": "k"}
    made = [client_order_id(**same), client_order_id(**same, leg="L"), client_order_id(**same, leg="M")]
    made += [client_order_id(**(same | {name: "other"})) for name in same]
    assert len(set(made)) == len(made)


def test_legs_of_one_intent_differ_in_their_ending_only() -> None:
    whole = client_order_id(account="main", mode="paper", key="k")
    assert client_order_id(account="main", mode="paper", key="k", leg="L") == f"{whole}-L"


@given(st.lists(st.text(max_size=8), max_size=4), st.lists(st.text(max_size=8), max_size=4))
def test_digest_does_not_depend_on_where_one_part_ends_and_the_next_begins(one: list[str], other: list[str]) -> None:
    """Length-prefixed: ("ab", "c") and ("a", "bc") are two names."""
    assert (digest(*one) == digest(*other)) == (one == other)
    assert re.fullmatch(r"[a-z2-7]{28}", digest(*one))


@given(st.lists(st.text(max_size=8), max_size=4))
def test_digest_is_the_base32_of_a_hash_over_prefixed_parts(parts: list[str]) -> None:
    raw = [part.encode() for part in parts]
    named = hashlib.sha256(b"".join(len(one).to_bytes(4, "big") + one for one in raw))
    assert digest(*parts) == base64.b32encode(named.digest()).decode().lower()[:28]


def test_digest_separates_parts() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("", "abc"), digest("abc", "")}) == 5


@pytest.mark.parametrize("text", ["a", "btc-2026.11.21:1_x", "A" * 200])
def test_well_formed_key_is_taken(text: str) -> None:
    assert is_key(text)


@pytest.mark.parametrize("text", ["", "A" * 201, "a b", "a\n", "ä", "a/b", "a*", "a\x00", "\N{FULLWIDTH DIGIT ONE}"])
def test_malformed_key_is_refused(text: str) -> None:
    assert not is_key(text)
