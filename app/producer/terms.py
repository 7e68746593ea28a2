"""What follows from an intent when it is taken: its row in the journal, its queue, its validity."""

from dataclasses import dataclass
from typing import Final

from app.delivery import URGENT
from app.intents import Intent, OrderIntent, canonical_of, content_hash, fields_of, line_of
from app.job_safety import keys
from app.journal.intents import NewIntent

SWEEP_AFTER_MS: Final = 5_000
"""When the sweeper looks whether the queue has moved it: the producer hands it over at once."""

_QUEUES: Final = {"position": "positions", "ledger": "ledger", "pnl": "pnl", "signal": "signals", "cancel": URGENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms an installation takes intents.

    Attributes:
        account: The account label.
        mode: The trading mode.
        default_valid_for_s: Validity of what opens risk and does not say for how long.
    """

    account: str
    mode: str
    default_valid_for_s: int

    def row(self, intent: Intent, now_ms: int) -> NewIntent:
        """Return the row of an intent that is taken at `now_ms`."""
        fields = fields_of(intent)
        text = canonical_of(fields)
        # By `type`, since `isinstance` of a model of pydantic's is a search through the models.
        order = intent if intent.type == "order" else None
        risky = intent if intent.type in ("order", "signal") else None
        traded = intent if intent.type in ("order", "signal", "position", "pnl") else None
        return NewIntent(
            key=intent.key,
            type=intent.type,
            queue=queue_of(intent),
            content=text,
            content_hash=content_hash(text),
            opens_risk=risky is not None and risky.opens_risk,
            created_at_ms=now_ms,
            run_at_ms=now_ms + SWEEP_AFTER_MS,
            venue=traded.venue if traded else None,
            symbol=traded.symbol if traded else None,
            client_order_id=self._client_order_id(order) if order else None,
            parent_key=intent.order_key if intent.type == "cancel" else None,
            # Conditional futures orders live at an endpoint of their own, with ids of their own.
            is_algo=order is not None and order.venue == "usdm" and order.is_conditional,
            valid_until_ms=self.valid_until_ms(intent, now_ms),
            description=line_of(fields),
        )

    def valid_until_ms(self, intent: Intent, now_ms: int) -> int | None:
        """Return when an intent that is taken at `now_ms` runs out of validity; None: never."""
        if intent.type not in ("order", "signal"):
            return None
        if intent.valid_for_s is not None:
            return now_ms + intent.valid_for_s * 1000
        # What is urgent takes risk away: late is better than never.
        if intent.opens_risk and not intent.is_urgent:
            return now_ms + self.default_valid_for_s * 1000
        return None

    def _client_order_id(self, order: OrderIntent) -> str:
        return keys.client_order_id(account=self.account, mode=self.mode, key=order.key)


def queue_of(intent: Intent) -> str:
    """Return the queue of an intent: what takes risk away never waits behind what opens it."""
    if intent.type == "order":
        return URGENT if intent.is_urgent else "orders"
    return _QUEUES[intent.type]
