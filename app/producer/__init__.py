"""The way in: `submit` validates an intent, journals it, and hands its key to the queue."""

from app.producer.service import CONFLICT, MAX_BATCH, NOT_DELIVERED, Producer, submit
from app.producer.submission import Status, Submission
from app.producer.terms import Terms, queue_of

__all__ = ["CONFLICT", "MAX_BATCH", "NOT_DELIVERED", "Producer", "Status", "Submission", "Terms", "queue_of", "submit"]
