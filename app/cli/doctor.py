"""`fillonce doctor`: is it safe to trade here?"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import exit_codes
from app.cli.findings import Finding, Level, fail, ok, unreachable
from app.cli.output import as_json, cell, emit, say

if TYPE_CHECKING:
    from app.job_safety.kill_switch import KillState
    from app.settings import Settings

_WIDTH: Final = 20


def doctor(
    *,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per finding.")] = False,
) -> None:
    """Look at settings, Redis, journal and the exchange's clock, and say what is not safe and what to do about it.

    Exit code: 0 nothing fails (warnings included), 1 something fails, 3 a store or the exchange cannot be reached.

    Example:
      fillonce doctor
    """
    worst = exit_codes.DONE
    for finding in _findings():
        emit([as_json(finding.fields()) if json_ else _line(finding)])
        if finding.is_unreachable:
            worst = exit_codes.UNAVAILABLE
        elif finding.level is Level.FAIL and worst == exit_codes.DONE:
            worst = exit_codes.FAILED
    say("it is safe to trade here" if worst == exit_codes.DONE else "it is not safe to trade here")
    if worst != exit_codes.DONE:
        raise typer.Exit(worst)


def _findings() -> Iterator[Finding]:
    from app.cli.own_settings import tell_where  # lazy: --help needs nothing of this
    from app.composition import kill_sources_here
    from app.settings import SettingsError, check, load_settings, short_hash, with_local_exchange

    try:
        settings = load_settings(os.environ, Path.cwd())
    except SettingsError as error:
        for problem in error.problems:
            yield fail("settings", problem, "correct it; nothing else can be looked at before")
        return
    problems = check(settings)
    for item in problems:
        yield fail("settings", f"{item.field}: {item.text}", item.remedy)
    if not problems:
        yield ok("settings", f"mode {settings.mode}, account {settings.account}, hash {short_hash(settings)}")
    tell_where(settings, needs_redis=True)
    for source, state in kill_sources_here(settings)().items():
        yield from _kill_source(f"the {source}", state)
    yield from _redis(settings)
    yield from _journal(settings)
    yield from _exchange(with_local_exchange(settings))


def _kill_source(source: str, state: "KillState") -> Iterator[Finding]:
    if state.value != "RUN":
        yield fail("kill switch", f"{source} says {state.value}", "`fillonce kill-switch status` shows every source")


def _redis(settings: "Settings") -> Iterator[Finding]:
    from redis.exceptions import RedisError

    from app.cli.doctor_redis import look
    from app.clock import SystemClock
    from app.job_safety.errors import JobSafetyError
    from app.job_safety.kill_key import KillKey
    from app.job_safety.kill_switch import parse
    from app.wiring import UNREADABLE_URL, connect_redis, redis_url

    clock = SystemClock()
    try:
        with connect_redis(redis_url(settings, clock)) as client:
            yield from look(client, settings, clock)
            key = KillKey(client, settings.guard.kill_switch_key)
            yield from _kill_source(f"the Redis key {key.name}", parse(key.read()))
    except ValueError:
        yield fail("redis", UNREADABLE_URL, "correct REDIS_URL")
    except (RedisError, JobSafetyError, OSError) as error:
        remedy = "start it, or correct REDIS_URL" if settings.stores.redis_url else "see the text"
        yield unreachable("redis", str(error).rstrip("."), remedy)


def _journal(settings: "Settings") -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from app.cli.doctor_journal import look
    from app.job_safety.errors import JobSafetyError, StoreUnavailableError
    from app.wiring import UNREADABLE_URL, open_journal

    try:
        journal = open_journal(settings)
        try:
            yield from look(journal, account=settings.account, mode=settings.mode.value)
        finally:
            journal.close()
    except (StoreUnavailableError, SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        remedy = "start it, or correct DATABASE_URL" if settings.stores.database_url else "see the text"
        yield unreachable("journal", str(cause).removeprefix("journal: "), remedy)
    except ValueError:
        yield fail("journal", UNREADABLE_URL, "correct DATABASE_URL")
    except JobSafetyError as error:
        yield fail("journal", str(error), "see the text")


def _exchange(settings: "Settings") -> Iterator[Finding]:
    from app.cli.doctor_exchange import look
    from app.clock import SystemClock
    from app.wiring import make_gateway

    if settings.exchange.futures_url is None or settings.exchange.spot_url is None:
        yield ok("exchange", f"none is named; mode {settings.mode} starts or needs none of its own accord")
        return
    clock = SystemClock()
    gateway = make_gateway(settings, clock)
    try:
        yield from look(gateway, clock)
    finally:
        gateway.close()


def _line(finding: Finding) -> str:
    text = f"{finding.level.value:<5} {finding.check:<{_WIDTH}} {cell(finding.detail)}"
    return f"{text}: {cell(finding.remedy)}" if finding.remedy else text
