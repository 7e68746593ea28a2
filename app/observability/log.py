"""One canonical JSON line per event, to standard error; snake_case events, values bound as fields, secrets by type."""

import contextlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Patient:
    """A stream that bears a disk without room: lines are lost then, and whoever wrote them goes on with its work.

    Equal for the same stream, since loggers of one stream share a lock by that.
    """

    stream: TextIO

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()


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
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        cache_logger_on_first_use=True,
    )
    bound_logger: FilteringBoundLogger = logger.bind(**bound)
    return bound_logger


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
