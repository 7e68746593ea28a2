"""Ours: intents through the producer, as a bot submits them; runs in the project's own virtual environment."""

from collections.abc import Sequence
from decimal import Decimal

from app.clock import SystemClock
from app.intents import OrderIntent
from app.producer import Producer
from app.wiring import open_installation, settings_from_environment


def fill(client_ids: Sequence[str]) -> None:
    """Enqueue all."""
    producer = Producer.of(open_installation(settings_from_environment(), SystemClock()))
    producer.submit_many(
        [
            OrderIntent(
                key=one, venue="usdm", symbol="BTCUSDT", side="BUY", order_type="MARKET", quantity=Decimal("0.001"),
                valid_for_s=3600,
            )
            for one in client_ids
        ]
    )  # fmt: skip
