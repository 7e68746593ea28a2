"""A loop that ends when it is told to."""

import signal
import threading
from types import FrameType


class Stop:
    """Set by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @classmethod
    def on_signals(cls) -> "Stop":
        """Return one that SIGTERM and SIGINT set. Main thread only."""
        stop = cls()

        def handle(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
        return stop

    def set(self) -> None:
        """Tell the loop to end."""
        self._event.set()

    def wait_for_ever(self) -> None:
        """Wait until told to end."""
        self._event.wait()

    def wait(self, seconds: float) -> bool:
        """Wait; return at once, and true, when told to end."""
        return self._event.wait(seconds)
