"""What the environment of a command says. Kept apart from what opens stores: `up` stays small while it waits."""

import os
from pathlib import Path

from app.cli.output import say
from app.settings import Settings, SettingsError, check, load_settings


def sane_settings() -> Settings:
    """Return the settings of this process, complete and fitting together.

    Raises:
        SettingsError: says all that is wrong.
    """
    settings = load_settings(os.environ, Path.cwd())
    if problems := check(settings):
        raise SettingsError(str(problem) for problem in problems)
    return settings


def tell_where(settings: Settings, *, needs_redis: bool) -> None:
    """Say where the data is if a store of this command is an embedded one."""
    stores = settings.stores
    if stores.database_url is None or (needs_redis and stores.redis_url is None):
        say(f"data: {stores.home} (FILLONCE_HOME)")
