"""How a command ends that could not do its work: the error in words, the remedy, and an exit code. In one place."""

from typing import Final

from redis.exceptions import RedisError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from app.cli import exit_codes
from app.cli.output import say
from app.embedded.home import HomeError
from app.embedded.redis_binary import EmbeddedRedisError
from app.exchange.errors import ExchangeQueryError
from app.intents import IntentError
from app.job_safety.errors import IntentNotFoundError, RetryableError, StoreUnavailableError, WrongInstallationError
from app.journal.migrate import SchemaError
from app.settings import SettingsError
from app.wiring import NoExchangeError

_LOOK: Final = "`fillonce doctor` says more. Trying again is safe: the same key is never taken twice."
_TABLE: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (SettingsError, exit_codes.USAGE, "`fillonce config show` lists the settings and where each comes from."),
    (WrongInstallationError, exit_codes.USAGE, ""),
    (SchemaError, exit_codes.USAGE, ""),
    (HomeError, exit_codes.USAGE, ""),
    (IntentNotFoundError, exit_codes.USAGE, "`fillonce intents list` shows what it knows."),
    (IntentError, exit_codes.USAGE, ""),
    (ArgumentError, exit_codes.USAGE, "DATABASE_URL: sqlite:////absolute/path or postgresql+psycopg://user@host/name"),
    (EmbeddedRedisError, exit_codes.UNAVAILABLE, ""),
    (StoreUnavailableError, exit_codes.UNAVAILABLE, _LOOK),
    (ExchangeQueryError, exit_codes.UNAVAILABLE, "`fillonce doctor` says more."),
    (NoExchangeError, exit_codes.UNAVAILABLE, ""),
    (RetryableError, exit_codes.UNAVAILABLE, "Trying again is safe."),
    (RedisError, exit_codes.UNAVAILABLE, _LOOK),
    (SQLAlchemyError, exit_codes.UNAVAILABLE, _LOOK),
)


def report(error: Exception) -> int | None:
    """Say what went wrong and what to do about it; return the exit code, or None for an error that is a bug."""
    for kind, code, remedy in _TABLE:
        if isinstance(error, kind):
            for line in _words(error):
                say(f"error: {line}")
            if remedy:
                say(remedy)
            return code
    return None


def _words(error: Exception) -> list[str]:
    if isinstance(error, SQLAlchemyError) and (cause := getattr(error, "orig", None)) is not None:
        # Not the statement: it is long, and its parameters are nobody's business.
        return [" ".join(f"journal: {cause}".split())]
    if isinstance(error, SettingsError):
        return list(error.problems)
    return [" ".join(str(error).split()) or type(error).__name__]
