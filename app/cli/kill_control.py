"""The kill switch of the installation that the environment names, for the commands that move or show it."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.cli.own_settings import tell_where
from app.clock import SystemClock
from app.control.kill import Control, opened
from app.wiring import settings_from_environment


@contextmanager
def control() -> Iterator[Control]:
    """Yield the switch. Settings that do not fit together are no reason not to stop."""
    settings = settings_from_environment()
    tell_where(settings, needs_redis=True)
    with opened(settings, SystemClock(), owner="command line") as one:
        yield one
