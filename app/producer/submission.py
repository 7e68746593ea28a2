"""The answer to a submission."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What became of a submission. The values are what `enqueue` prints."""

    ACCEPTED = "accepted"
    """New: it is in the journal now."""

    DUPLICATE = "duplicate"
    """The same content under the same key is in the journal already; nothing was added."""

    CONFLICT = "conflict"
    """The key belongs to another content; nothing was changed."""

    INVALID = "invalid"
    """Not an intent that can be taken; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The answer to one intent.

    Attributes:
        key: The intent's key.
        status: What became of it.
        delivered: Whether the queue has been told, where it had to be. False and journaled: the sweeper will tell it.
        error: What is wrong and what to do about it, in words; None if nothing is.
    """

    key: str
    status: Status
    delivered: bool
    error: str | None

    @property
    def is_taken(self) -> bool:
        """Whether the intent is in the journal with this content."""
        return self.status in {Status.ACCEPTED, Status.DUPLICATE}
