"""`fillonce config`: the settings, checked and shown."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.output import as_json, as_table, emit, say
from app.cli.typers import plain_typer

app = plain_typer(no_args_is_help=True)


@app.callback()
def config() -> None:
    """Check and show the settings."""


@app.command("check")
def check(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object per problem.")] = False) -> None:
    """Say what is wrong with the settings: unknown, malformed, missing, or not fitting together.

    Exit code: 0 nothing is wrong, 2 something is.

    Example:
      fillonce config check
    """
    from app.settings import SettingsError, load_settings  # lazy: --help needs no settings
    from app.settings import check as check_settings

    try:
        problems = [str(problem) for problem in check_settings(load_settings(os.environ, Path.cwd()))]
    except SettingsError as error:
        problems = list(error.problems)
    emit(as_json({"problem": problem}) if json_ else problem for problem in problems)
    if problems:
        raise typer.Exit(exit_codes.USAGE)
    say("the settings are sane")


@app.command("show")
def show(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object per setting.")] = False) -> None:
    """Show every effective setting and where it comes from; secrets are hidden.

    Example:
      fillonce config show
    """
    from app.settings import describe, load_settings  # lazy: --help needs no settings

    rows = describe(load_settings(os.environ, Path.cwd()))
    if json_:
        emit(as_json({"field": row.field, "value": row.value, "source": row.source}) for row in rows)
    else:
        emit(as_table(("setting", "value", "source"), [(row.field, _text(row.value), row.source) for row in rows]))


@app.command("hash")
def hash_(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Print the hash of the effective settings: two installations that print the same are configured alike.

    Example:
      fillonce config hash
    """
    from app.settings import config_hash, load_settings  # lazy: --help needs no settings

    value = config_hash(load_settings(os.environ, Path.cwd()))
    emit([as_json({"config_hash": value}) if json_ else value])


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
