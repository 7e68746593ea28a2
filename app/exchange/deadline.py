"""The deadline of the request under way, and whether a byte of it was handed to a socket.

A socket's timeout bounds one read; a server that drips a byte a second would hold a request for ever. So every read is
given only what is left until the deadline. That needs no second thread, which would not survive a fork.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from app.clock import Clock

_LATE_READS: Final = 64
"""Reads of already arrived bytes that are still allowed after the deadline: a process that was stopped must not turn an
answer that is waiting in its socket into a doubt."""

_Read = TypeVar("_Read")


class Wire(threading.local):
    """The request under way in this thread: its deadline, and whether its first byte was handed to a socket."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadline = 0.0
        self.read_timeout_s = 0.0
        self.late_reads = 0
        self.sent = False

    def begin(self, now: float, *, deadline_s: float, read_timeout_s: float) -> None:
        """Start the clock of a new request at `now` (monotonic seconds)."""
        self.deadline = now + deadline_s
        self.read_timeout_s = read_timeout_s
        self.late_reads = 0
        self.sent = False

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline; negative once it has passed."""
        return self.deadline - self.clock.monotonic()

    def read(self, sock: socket.socket, read: Callable[[], _Read]) -> _Read:
        """Run one `read` of `sock` within what is left; past the deadline take only what has already arrived."""
        remaining = self.remaining_s()
        if remaining > 0:
            sock.settimeout(min(remaining, self.read_timeout_s))
            return read()
        self.late_reads += 1
        if self.late_reads > _LATE_READS:
            raise TimeoutError("deadline passed, and bytes keep trickling in")
        sock.settimeout(0)
        try:
            return read()
        except (BlockingIOError, ssl.SSLWantReadError) as error:
            raise TimeoutError("deadline passed without a whole answer") from error


class DeadlineSocket(socket.socket):
    """A socket that obeys the deadline also where a library reads it: while a proxy is asked for a tunnel."""

    wire: Wire | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive within what is left."""
        if self.wire is None:
            return super().recv_into(buffer, nbytes, flags)
        return self.wire.read(self, lambda: super(DeadlineSocket, self).recv_into(buffer, nbytes, flags))
