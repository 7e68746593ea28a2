"""A clock that moves only when a test moves it."""

from datetime import datetime

from app.clock import from_ms

START_MS = 1_800_000_000_000


class FakeClock:
    """Wall time and monotonic time are two things: `advance` moves both, `jump` sets the wall clock alone."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._wall_ms = now_ms
        self._elapsed_ms = 0

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return from_ms(self._wall_ms)

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return self._wall_ms

    def monotonic(self) -> float:
        """Return seconds since this clock was made; never jumps."""
        return self._elapsed_ms / 1000

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.advance(round(seconds * 1000))

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        if milliseconds < 0:
            raise ValueError("time does not go back: use jump for a wall clock that is set")
        self._wall_ms += milliseconds
        self._elapsed_ms += milliseconds

    def jump(self, milliseconds: int) -> None:
        """Set the wall clock forward or back; no time passes."""
        self._wall_ms += milliseconds
