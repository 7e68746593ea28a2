"""Ours: intents through the producer, as a bot submits them; runs in the project's own virtual environment."""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache

from app.clock import SystemClock
from app.intents import OrderIntent
from app.job_safety import keys
from app.producer import Producer
from app.wiring import Installation, open_installation, settings_from_environment


def fill(client_ids: Sequence[str]) -> None:
    """Submit all at once."""
    told = _producer().submit_many([_intent(client_id) for client_id in client_ids])
    wrong = [one for one in told if one.status != "accepted" or not one.delivered]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(told)} were not taken, such as {wrong[0]}")


def one(client_id: str) -> None:
    """Submit one."""
    _producer().submit(_intent(client_id))


def known_as(client_id: str) -> str:
    """Return the client order id under which the exchange hears of it."""
    here = _installation()
    return keys.client_order_id(account=here.account, mode=here.mode, key=client_id)


def _intent(client_id: str) -> OrderIntent:
    return OrderIntent(
        key=client_id, venue="usdm", symbol="BTCUSDT", side="BUY", order_type="MARKET", quantity=Decimal("0.001"),
        valid_for_s=3600,
    )  # fmt: skip


@cache
def _installation() -> Installation:
    return open_installation(settings_from_environment(), SystemClock())


@cache
def _producer() -> Producer:
    return Producer.of(_installation())
