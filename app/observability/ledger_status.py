"""By how much the wallets of the books differed from the exchange's when the keeper last looked, left in Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from redis import Redis

from app.money import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """Ours less theirs, by asset, of every asset that either side holds."""

    at_ms: int
    differences: Mapping[str, Decimal]


def ledger_key(*, mode: str, account: str) -> str:
    """Return where it is kept."""
    return f"metrics:ledger:{mode}:{account}"


def write_ledger(redis: Redis, key: str, status: LedgerStatus, *, ttl_s: int) -> None:
    """Keep what was found for `ttl_s`.

    Raises:
        RedisError: it was not kept.
    """
    texts = {asset: plain(amount) for asset, amount in status.differences.items()}
    redis.set(key, json.dumps({"at_ms": status.at_ms, "differences": texts}), ex=ttl_s)


def read_ledger(redis: Redis, key: str) -> LedgerStatus | None:
    """Return the last look; None if nobody has looked lately.

    Raises:
        RedisError: Redis does not answer.
    """
    raw = redis.get(key)
    if not isinstance(raw, bytes | str):
        return None
    try:
        told = json.loads(raw)
        amounts = {str(asset): Decimal(text) for asset, text in told["differences"].items()}
        return LedgerStatus(at_ms=int(told["at_ms"]), differences=amounts)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation):
        return None
