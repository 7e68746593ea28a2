"""The queue port. With workers/, the only place that knows rq."""

from app.delivery.claims import Claim, Claims, Leavings
from app.delivery.port import FOLLOWUP, JOB_FUNCTIONS, QUEUES, URGENT, Delivery, Parcel, QueueState, rq_queue_name

__all__ = [
    "FOLLOWUP", "JOB_FUNCTIONS", "QUEUES", "URGENT", "Claim", "Claims", "Delivery", "Leavings", "Parcel", "QueueState",
    "rq_queue_name",
]  # fmt: skip
