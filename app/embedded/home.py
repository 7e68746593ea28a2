"""The data folder of the embedded stores."""

import os
from collections.abc import Mapping
from pathlib import Path

from app.job_safety.errors import TerminalError
from app.settings import home_from


class HomeError(TerminalError):
    """The data folder cannot be used. The text says what to do."""


def resolve_home(env: Mapping[str, str]) -> Path:
    """Return the data folder that `env` names: `FILLONCE_HOME`, else the user's own. Creates nothing.

    Raises:
        HomeError: `FILLONCE_HOME` is not absolute: a journal must not be one `cd` away.
    """
    named = env.get("FILLONCE_HOME")
    if named is None:
        return home_from(env)
    home = Path(named)
    if not home.is_absolute():
        raise HomeError(f"FILLONCE_HOME={named!r} is not an absolute path: give the whole path")
    return home


def prepare_home(home: Path) -> Path:
    """Create `home` for its owner alone if it is missing, and return it with links resolved.

    Raises:
        HomeError: it is no folder that this user can write.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HomeError(f"{home} cannot be the data folder ({error.strerror}): set FILLONCE_HOME") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise HomeError(f"{home} is not writable by this user: set FILLONCE_HOME, or mend its owner and mode")
    return home.resolve()


def private_folder(path: Path) -> Path:
    """Create `path` with mode 0700, or make sure that it is one of ours, and return it.

    Raises:
        HomeError: it is a link or belongs to another user, who could then stand between us and what is in it.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if path.is_symlink() or found.st_uid != os.geteuid():
            raise HomeError(f"{path} belongs to another user or is a link: remove it, or set FILLONCE_HOME")
        if found.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise HomeError(f"{path} cannot be made a private folder ({error.strerror})") from error
    return path
