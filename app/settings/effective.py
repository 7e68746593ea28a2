"""The effective settings, to show and to compare: every value, where it comes from, and one hash over all of them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel

from app.settings.mode import TradingMode
from app.settings.model import Settings
from app.settings.urls import is_loopback

SHORT_HASH = 16

_PLACES: Final = frozenset(
    {"stores.home", "config_folder", "sources", "metrics.port", "metrics.host", "kill_switch.http_token"}
)
"""Where things lie on one machine, and where the exporter is asked. They change nothing about trading: the same
settings hash alike everywhere, in the exporter as in the workers."""

_LOCAL_EXCHANGE: Final = frozenset(
    {"exchange.futures_url", "exchange.spot_url", "exchange.api_key", "exchange.api_secret"}
)
"""A place too, while it is the local exchange: `fillonce up` finds it anew whenever it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One effective setting."""

    field: str
    value: Any
    """Text, whole number, flag, list or None; secrets hidden."""
    source: str


def describe(settings: Settings) -> tuple[Described, ...]:
    """Return every effective setting, sorted by name, secrets hidden."""
    return tuple(
        Described(field=field, value=_shown(value), source=settings.sources.get(field, "default"))
        for field, value in sorted(_leaves(settings, ""))
        if field != "sources"
    )


def config_hash(settings: Settings) -> str:
    """Return the SHA-256 of the effective settings, 64 hex digits. Formatting, comments and order do not change it.

    A credential counts by whether it is set, never by value: a rotated key is the same configuration, and a hash that
    is logged must not help to guess a secret. How it came, by variable or by file, does not count either: `fillonce up`
    hands it on as a variable.
    """
    places = _PLACES | _LOCAL_EXCHANGE if _is_local(settings) else _PLACES
    canonical = {field: _shown(value) for field, value in _leaves(settings, "") if field not in places}
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def short_hash(settings: Settings) -> str:
    """Return the first `SHORT_HASH` digits of `config_hash`, for people."""
    return config_hash(settings)[:SHORT_HASH]


def _leaves(group: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_local(settings: Settings) -> bool:
    """Return whether the exchange is the local one, found already or yet to be found."""
    urls = (settings.exchange.futures_url, settings.exchange.spot_url)
    is_kept_here = settings.mode in {TradingMode.PAPER, TradingMode.DRY_RUN}
    return is_kept_here and all(url is None or is_loopback(url) for url in urls)


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")  # 0.1 and 0.10 are the same setting
    return str(value)
