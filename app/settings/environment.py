"""The environment variables that name a setting, and how strictly they are read.

A variable that is set but empty is an error: whether it means "nothing" or "forgotten" is not ours to guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from app.settings.mode import TradingMode

_TRUE: Final = frozenset({"true", "1", "yes"})
_FALSE: Final = frozenset({"false", "0", "no"})
_MAX_SECRET_BYTES: Final = 65_536
_OUR_PREFIXES: Final = ("FILLONCE_", "BINANCE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable and the setting that it gives."""

    name: str
    field: str
    has_file: bool = False
    """Whether NAME_FILE may name a file with the value: systemd credentials, Docker secrets."""
    is_number: bool = False


VARIABLES: Final = (
    Variable(name="TRADING_MODE", field="mode"),
    Variable(name="FILLONCE_ACCOUNT", field="account"),
    Variable(name="FILLONCE_HOME", field="stores.home"),
    Variable(name="REDIS_URL", field="stores.redis_url", has_file=True),
    Variable(name="DATABASE_URL", field="stores.database_url", has_file=True),
    Variable(name="BINANCE_API_KEY", field="exchange.api_key", has_file=True),
    Variable(name="BINANCE_API_SECRET", field="exchange.api_secret", has_file=True),
    Variable(name="BINANCE_FUTURES_URL", field="exchange.futures_url"),
    Variable(name="BINANCE_SPOT_URL", field="exchange.spot_url"),
    Variable(name="FILLONCE_KILL_SWITCH", field="kill_switch.state"),
    Variable(name="FILLONCE_KILL_SWITCH_TOKEN", field="kill_switch.http_token", has_file=True),
    Variable(name="ALERT_WEBHOOK_URL", field="alerts.webhook_url", has_file=True),
    Variable(name="METRICS_PORT", field="metrics.port", is_number=True),
    Variable(name="APPLY_PERMIT_WAIT_MS", field="policy.permit_wait_ms", is_number=True),
)
TESTNET: Final = "TESTNET"
CONFIG: Final = "FILLONCE_CONFIG"


def known_names() -> frozenset[str]:
    """Return every variable that is read."""
    names = {variable.name for variable in VARIABLES}
    files = {f"{variable.name}_FILE" for variable in VARIABLES if variable.has_file}
    return frozenset(names | files | {TESTNET, CONFIG})


def read_environment(env: Mapping[str, str]) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """Return field to (value, source) of what `env` sets, and what is wrong with it."""
    found: dict[str, tuple[Any, str]] = {}
    problems = _misspelled(env)
    for variable in VARIABLES:
        try:
            if (value := _value_of(variable, env)) is not None:
                found[variable.field] = value
        except ValueError as error:
            problems.append(str(error))
    try:
        _apply_testnet(env, found)
    except ValueError as error:
        problems.append(str(error))
    return found, problems


def _value_of(variable: Variable, env: Mapping[str, str]) -> tuple[Any, str] | None:
    name, from_file = variable.name, f"{variable.name}_FILE"
    if variable.has_file and from_file in env:
        if name in env:
            raise ValueError(f"{name} and {from_file} are both set: unset one of them")
        return _read_secret_file(from_file, env[from_file]), f"env:{from_file}"
    text = env.get(name)
    if text is None:
        return None
    if not text.strip():
        raise ValueError(f"{name} is set but empty: give it a value or unset it")
    if not variable.is_number:
        return text, f"env:{name}"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{name} must be a whole number, not {text[:50]!r}")
    return int(text), f"env:{name}"


def _read_secret_file(name: str, path: str) -> str:
    if not path.strip():
        raise ValueError(f"{name} is set but empty: give it a value or unset it")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        text = content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        # The error's own text may quote the content (UnicodeDecodeError does): only its kind is told.
        raise ValueError(f"{name}: {path} cannot be read ({type(error).__name__})") from None
    if not text or len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"{name}: {path} is {'too long' if text else 'empty'}")
    return text


def _apply_testnet(env: Mapping[str, str], found: dict[str, tuple[Any, str]]) -> None:
    text = env.get(TESTNET)
    if text is None:
        return
    if text.lower() in _FALSE:
        return
    if text.lower() not in _TRUE:
        raise ValueError(f"TESTNET must be true, 1, yes, false, 0 or no, not {text[:50]!r}: refusing to guess")
    mode, _ = found.get("mode", (TradingMode.TESTNET, ""))
    if mode != TradingMode.TESTNET:
        raise ValueError(f"TESTNET={text} contradicts TRADING_MODE={str(mode)[:50]}: unset one of them")
    found.setdefault("mode", (TradingMode.TESTNET.value, f"env:{TESTNET}"))
    found["permits_bypassed"] = (True, f"env:{TESTNET}")


def _misspelled(env: Mapping[str, str]) -> list[str]:
    """Name variables that look like ours and are not: a typo in FILLONCE_ACCOUNT would silently trade as `main`."""
    known = known_names()
    problems = []
    for prefix in _OUR_PREFIXES:
        # What comes after the prefix is compared: with it, all our names look alike.
        rests = [name.removeprefix(prefix) for name in known if name.startswith(prefix)]
        for name in sorted(set(env) - known):
            if not name.startswith(prefix):
                continue
            nearest = get_close_matches(name.removeprefix(prefix), rests, n=1, cutoff=0.75)
            problems += [f"{name} is not a variable that is read: did you mean '{prefix}{rest}'?" for rest in nearest]
    return problems
