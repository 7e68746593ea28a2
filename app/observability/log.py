"""One canonical JSON line per event, to standard error; snake_case events, values bound as fields, secrets by type."""

import sys
from typing import Any, TextIO

import structlog


def make_logger(*, stream: TextIO | None = None, **bound: object) -> structlog.typing.FilteringBoundLogger:
    """Return a logger that writes JSON lines to `stream` (standard error unless told otherwise)."""
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
    bound_logger: structlog.typing.FilteringBoundLogger = logger.bind(**bound)
    return bound_logger
