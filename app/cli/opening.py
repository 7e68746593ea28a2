"""Opens what a command needs, and says where the data of an embedded store is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.cli.output import say
from app.clock import SystemClock
from app.job_safety.errors import StoreUnavailableError
from app.journal import meta
from app.journal.engine import Journal
from app.settings import Settings, SettingsError, check
from app.wiring import UNREADABLE_URL, Installation, open_installation, open_journal, settings_from_environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """A journal opened for reading, and its stamp."""

    settings: Settings
    journal: Journal
    meta: meta.Meta


def sane_settings() -> Settings:
    """Return the settings of this process, complete and fitting together.

    Raises:
        SettingsError: says all that is wrong.
    """
    settings = settings_from_environment()
    if problems := check(settings):
        raise SettingsError(str(problem) for problem in problems)
    return settings


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


def tell_where(settings: Settings, *, needs_redis: bool) -> None:
    """Say where the data is if a store of this command is an embedded one."""
    stores = settings.stores
    if stores.database_url is None or (needs_redis and stores.redis_url is None):
        say(f"data: {stores.home} (FILLONCE_HOME)")


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
