"""What delivers an intent to its queue."""

from app.delivery import Parcel
from app.intents import describe
from app.job_safety.admission import EffectKind, asks_for
from app.job_safety.state import SENDABLE
from app.journal.intents import NewIntent
from app.journal.rows import IntentRow


def kind_of(row: IntentRow | NewIntent) -> EffectKind:
    """Return which gates can stop an order."""
    return EffectKind.OPEN if row.opens_risk else EffectKind.REDUCE


def parcel_of(row: IntentRow | NewIntent) -> Parcel:
    """Return what delivers `row` to its queue; the admission of an order to be sent can come with its beginning."""
    is_sent = isinstance(row, IntentRow) and row.state not in SENDABLE
    asks = asks_for(kind_of(row), row.venue) if row.type == "order" and row.venue and not is_sent else ""
    description = (row.description if isinstance(row, NewIntent) else "") or describe(row.content)
    return Parcel(key=row.key, type=row.type, queue=row.queue, description=description, asks=asks)


__all__ = ["kind_of", "parcel_of"]
