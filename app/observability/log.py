"""One canonical JSON line per event, to standard error; snake_case events, values bound as fields, secrets by type."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def make_logger(*, stream: TextIO | None = None, **bound: object) -> "FilteringBoundLogger":
    """Return a logger that writes JSON lines to `stream` (standard error unless told otherwise)."""
    structlog = _structlog()
    logger: Any = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
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
