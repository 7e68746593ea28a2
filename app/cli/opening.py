"""Opens what a command needs, and says where the data of an embedded store is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.cli.own_settings import sane_settings, tell_where
from app.clock import SystemClock
from app.job_safety.errors import StoreUnavailableError
from app.journal import meta
from app.journal.engine import Journal
from app.settings import Settings, SettingsError
from app.wiring import UNREADABLE_URL, Installation, open_installation, open_journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """A journal opened for reading, and its stamp."""

    settings: Settings
    journal: Journal
    meta: meta.Meta


@contextmanager
def installation() -> Iterator[Installation]:
    """Yield the installation that the environment names, with both stores."""
    settings = sane_settings()
    tell_where(settings, needs_redis=True)
    with _translated():
        opened = open_installation(settings, SystemClock())
    try:
        yield opened
    finally:
        opened.redis.close()
        opened.journal.close()


@contextmanager
def books() -> Iterator[Books]:
    """Yield the journal that the environment names, for commands that only read: they need no Redis."""
    settings = sane_settings()
    tell_where(settings, needs_redis=False)
    with _translated():
        journal = open_journal(settings)
    try:
        stamp = meta.claim(journal, account=settings.account, mode=settings.mode.value, now_ms=SystemClock().now_ms())
        yield Books(settings=settings, journal=journal, meta=stamp)
    finally:
        journal.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(f"journal: {error}") from error
    except SettingsError:
        raise
    except ValueError as error:
        # The library's own text may quote a part of the URL that is a password.
        raise SettingsError([UNREADABLE_URL]) from error
