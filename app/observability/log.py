"""One canonical JSON line per event, to standard error; snake_case events, values bound as fields, secrets by type."""

import contextlib
import json
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger

_ENCODE: Final = json.JSONEncoder(default=str).encode
"""As structlog's renderer does it, which makes an encoder for each line."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Patient:
    """A stream that bears a disk without room: lines are lost then, and whoever wrote them goes on with its work.

    Equal for the same stream, since loggers of one stream share a lock by that.
    """

    stream: TextIO

    def write(self, text: str) -> None:
        """Bring one line to the stream."""
        with contextlib.suppress(OSError):
            self.stream.write(text)
            self.stream.flush()

    def flush(self) -> None:
        """Do nothing: a line that was written has been flushed."""


def make_logger(*, stream: TextIO | None = None, **bound: object) -> "FilteringBoundLogger":
    """Return a logger that writes JSON lines to `stream` (standard error unless told otherwise).

    A line that cannot be written, such as on a full disk, raises nothing: an event is in the journal and in the
    counters too, and what is being dispatched or settled must not break because of its log line.
    """
    structlog = _structlog()
    logger: Any = structlog.wrap_logger(
        structlog.WriteLogger(_Patient(stream or sys.stderr)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        cache_logger_on_first_use=True,
    )
    bound_logger: FilteringBoundLogger = logger.bind(**bound)
    return bound_logger


def _rendered(_logger: object, _method: str, event: "EventDict") -> str:
    return _ENCODE(event)


def _structlog() -> ModuleType:
    """Import structlog without rich, which its console renderer would load: 8 MB in every worker, for nothing here."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        import structlog
    else:
        sys.modules["rich"] = None  # type: ignore[assignment]  # documented: None makes an import fail
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    return structlog
