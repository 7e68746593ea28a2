"""Names that follow from an intent and nothing else: the same on every machine, after the loss of every store."""

import hashlib
import re
from itertools import product
from typing import Final, NewType

IdempotencyKey = NewType("IdempotencyKey", str)
ClientOrderId = NewType("ClientOrderId", str)

KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,200}")
ACCOUNT_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
CLIENT_ORDER_ID_PREFIX: Final = "fo-"
CLIENT_ORDER_ID_MAX: Final = 36
"""Both venues: `^[a-zA-Z0-9-_]{1,36}$` (Binance, new order, newClientOrderId)."""

_HASH_CHARS: Final = 28  # 140 bits in base32
_HASH_BITS_CUT: Final = 256 - 5 * _HASH_CHARS
_HASH_SHIFTS: Final = range(5 * _HASH_CHARS - 10, -1, -10)
_PAIRS: Final = tuple(map("".join, product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)))
"""Two characters of base32 at a time: the library's own takes thrice as long, and every job has two of these names."""


def is_key(text: str) -> bool:
    """Return whether `text` is a well-formed idempotency key."""
    return KEY_PATTERN.fullmatch(text) is not None


def digest(*parts: str) -> str:
    """Return a short, stable name for `parts`: base32 of SHA-256 over length-prefixed UTF-8, lower case."""
    raw = [part.encode() for part in parts]
    named = hashlib.sha256(b"".join([len(one).to_bytes(4, "big") + one for one in raw])).digest()
    number = int.from_bytes(named, "big") >> _HASH_BITS_CUT
    return "".join([_PAIRS[number >> shift & 1023] for shift in _HASH_SHIFTS])


def client_order_id(*, account: str, mode: str, key: str, leg: str | None = None) -> ClientOrderId:
    """Return the one client order id of an intent (and leg): at most 36 characters of `[A-Za-z0-9_-]`."""
    suffix = f"-{leg}" if leg else ""
    return ClientOrderId(f"{CLIENT_ORDER_ID_PREFIX}{digest('client_order_id', account, mode, key)}{suffix}")


def job_id(*, account: str, mode: str, intent_type: str, key: str) -> str:
    """Return the deterministic RQ job id of an intent (RQ allows `[A-Za-z0-9_-]` only)."""
    return f"{intent_type}-{digest('job', account, mode, intent_type, key)}"


def guard_key(*, namespace: str, account: str, mode: str, intent_type: str, key: str) -> str:
    """Return the Redis key of an intent's guard."""
    return f"{namespace}:{mode}:{account}:{intent_type}:{key}"
