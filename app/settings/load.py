"""Puts defaults, files and environment together: the environment wins over files, files over defaults."""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from app.settings.environment import CONFIG, VARIABLES, known_names, read_environment
from app.settings.errors import SettingsError, did_you_mean
from app.settings.mode import TradingMode
from app.settings.model import Settings
from app.settings.secret import StoreUrl
from app.settings.urls import TESTNET_FUTURES_URL, TESTNET_SPOT_URL

_Found = dict[str, tuple[Any, str]]

_FILES: Final = {"config.yaml": None, "policy.yaml": "policy", "universe.yaml": "universe"}
"""File name to the group that it holds; None: all the other groups."""

_NOT_IN_FILES: Final = frozenset({"permits_bypassed", "sources", "config_folder", "policy", "universe"})
_SECRETS: Final = frozenset({"exchange.api_key", "exchange.api_secret", "alerts.webhook_url", "kill_switch.http_token"})
_URLS_WITH_PASSWORD: Final = frozenset({"stores.redis_url", "stores.database_url"})


def load_settings(env: Mapping[str, str], cwd: Path) -> Settings:
    """Return the settings that `env` and the files of the config folder give.

    Args:
        env: the environment, usually `os.environ`.
        cwd: where `./config` is looked for.

    Raises:
        SettingsError: anything is unknown, malformed, contradictory or missing; all that was found, at once.
    """
    folder = _config_folder(env, cwd)
    found: _Found = {}
    problems: list[str] = []
    if folder is not None:
        from_files, problems = _read_files(folder)
        found.update(from_files)
    from_env, env_problems = read_environment(env)
    found.update(from_env)
    problems += env_problems
    if problems:
        raise SettingsError(problems)
    _fill_in(found, env)
    return _validate(found, folder)


def home_from(env: Mapping[str, str]) -> Path:
    """Return the folder of the embedded stores when nothing names one: `$XDG_DATA_HOME/fillonce`, per user."""
    base = Path(env.get("XDG_DATA_HOME", ""))
    # The XDG Base Directory Specification: a relative path is invalid and to be ignored.
    if not base.is_absolute():
        base = _user_home(env) / ".local" / "share"
    return base / "fillonce"


def child_environment(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` for a child process that is to load exactly these settings, whatever was filled in since.

    Holds the credentials in clear text, as the environment of this process may already do: never log it.
    """
    child = {name: value for name, value in env.items() if name not in known_names()}
    for variable in VARIABLES:
        value: Any = settings
        for part in variable.field.split("."):
            value = getattr(value, part)
        if value is not None:
            child[variable.name] = value.reveal() if hasattr(value, "reveal") else str(value)
    if settings.permits_bypassed:
        child["TESTNET"] = "true"
    if settings.config_folder is not None:
        child[CONFIG] = str(settings.config_folder)
    return child


def _user_home(env: Mapping[str, str]) -> Path:
    home = Path(env.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        return Path.home()
    except RuntimeError as error:
        raise SettingsError(["no home folder is known: set FILLONCE_HOME to an absolute path"]) from error


def _config_folder(env: Mapping[str, str], cwd: Path) -> Path | None:
    if CONFIG not in env:
        folder = cwd / "config"
        return folder if folder.is_dir() else None
    if not env[CONFIG].strip():
        raise SettingsError([f"{CONFIG} is set but empty: give it a value or unset it"])
    folder = cwd / Path(env[CONFIG])
    if not folder.is_dir():
        raise SettingsError([f"{CONFIG}: {folder} is not a folder: create it or unset {CONFIG}"])
    return folder


def _read_files(folder: Path) -> tuple[_Found, list[str]]:
    from app.settings.yaml_file import read_yaml  # lazy: without files no YAML is needed

    found: _Found = {}
    problems: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".yaml", ".yml"}:
            continue
        if path.name not in _FILES:
            problems.append(f"{path}: not a file that is read: {did_you_mean(path.name, _FILES)}")
            continue
        group = _FILES[path.name]
        try:
            tree = read_yaml(path)
        except SettingsError as error:
            problems += error.problems
            continue
        if group is None:
            names = frozenset(Settings.model_fields) - _NOT_IN_FILES
            problems += _collect(tree, Settings, names, path=str(path), prefix="", found=found)
        else:
            problems += _collect({group: tree}, Settings, frozenset({group}), path=str(path), prefix="", found=found)
    return found, problems


def _collect(
    tree: Mapping[str, Any], model: type[BaseModel], names: frozenset[str], *, path: str, prefix: str, found: _Found
) -> list[str]:
    """Flatten `tree` into `found`, and return a line for every key that is not in `names`."""
    problems: list[str] = []
    for key, value in tree.items():
        field = f"{prefix}{key}"
        if key not in names:
            problems.append(f"{path}: unknown key {field!r}: {did_you_mean(key, names)}")
            continue
        group = model.model_fields[key].annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            if isinstance(value, dict):
                problems += _collect(
                    value, group, frozenset(group.model_fields), path=path, prefix=f"{field}.", found=found
                )
            elif value is not None:
                problems.append(f"{path}: {field} must hold keys and values")
        elif field in _SECRETS or (field in _URLS_WITH_PASSWORD and StoreUrl(str(value) or "-").has_password):
            name = next(variable.name for variable in VARIABLES if variable.field == field)
            problems.append(f"{path}: {field}: a secret does not belong in this file: use {name} or {name}_FILE")
        else:
            found[field] = (value, path)
    return problems


def _fill_in(found: _Found, env: Mapping[str, str]) -> None:
    """Add the defaults that depend on other settings."""
    if found.get("stores.home", (None, ""))[0] is None:
        found["stores.home"] = (str(home_from(env)), "default")
    else:
        home, source = found["stores.home"]
        if isinstance(home, str) and (home == "~" or home.startswith("~/")):
            found["stores.home"] = (str(_user_home(env) / home[2:]), source)
    stores = [name for name in sorted(_URLS_WITH_PASSWORD) if found.get(name, (None, ""))[0] is not None]
    if found.get("mode", (None, ""))[0] is None:
        if stores:
            where = f"{' and '.join(stores)} ({found[stores[0]][1]}) name a store of yours"
            remedy = "say which mode it is for: TRADING_MODE=dry_run, paper or testnet"
            raise SettingsError([f"TRADING_MODE is not set, but {where}: {remedy}"])
        found["mode"] = (TradingMode.PAPER.value, "default")
    if found["mode"][0] == TradingMode.TESTNET:
        found.setdefault("exchange.futures_url", (TESTNET_FUTURES_URL, "default of mode testnet"))
        found.setdefault("exchange.spot_url", (TESTNET_SPOT_URL, "default of mode testnet"))


def _validate(found: _Found, folder: Path | None) -> Settings:
    tree: dict[str, Any] = {"sources": {field: source for field, (_, source) in found.items()}}
    if folder is not None:
        tree["config_folder"] = str(folder)
    for field, (value, _) in found.items():
        group, _, key = field.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[key] = value
    try:
        # As JSON and strict: text is not a number, a number is not a flag, and nothing is rounded or guessed.
        return Settings.model_validate_json(json.dumps(tree, default=_json), strict=True)
    except ValidationError as error:
        raise SettingsError(_explain(error, found)) from None  # pydantic's own text might hold values


def _json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} in a file of settings")


def _explain(error: ValidationError, found: _Found) -> list[str]:
    problems = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        place = [str(part) for part in item["loc"]]
        field = next((name for name in (".".join(place[:2]), ".".join(place[:1])) if name in found), ".".join(place))
        source = found.get(field, (None, ""))[1]
        text = item["msg"].removeprefix("Value error, ")
        where = f"{source.removeprefix('env:')}: " if source else ""
        hint = f"; {did_you_mean(str(found[field][0]), list(TradingMode))}" if field == "mode" else ""
        problems.append(f"{where}{field} {text}{hint}".strip() if field else text)
    return problems
