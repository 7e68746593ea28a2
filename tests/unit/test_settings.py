"""Settings: strict, layered, secret where they must be, sane, and one hash over all of them."""

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from app.settings import (
    Secret,
    Settings,
    SettingsError,
    StoreUrl,
    TradingMode,
    check,
    child_environment,
    config_hash,
    describe,
    load_settings,
    opening_read_lag_ms,
    short_hash,
)
from app.settings.environment import known_names
from app.settings.urls import exchange_url_error

ROOT = Path(__file__).parents[2]
HUSH = "hush-hush-1234"
TESTNET = {"TRADING_MODE": "testnet", "BINANCE_API_KEY": "k", "BINANCE_API_SECRET": HUSH}
POSTGRES = "postgresql+psycopg://me:hush-hush-1234@db.example/journal"


def load(tmp_path: Path, env: Mapping[str, str] | None = None, **files: str) -> Settings:
    folder = tmp_path / "config"
    for name, text in files.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    return load_settings({"HOME": "/home/me", **(env or {})}, tmp_path)


def refusal(tmp_path: Path, env: Mapping[str, str] | None = None, **files: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, env, **files)
    return str(caught.value)


# Layers


def test_defaults_are_paper_on_embedded_stores(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.mode is TradingMode.PAPER
    assert settings.account == "main"
    assert settings.stores.are_embedded
    assert settings.stores.home == Path("/home/me/.local/share/fillonce")
    assert settings.exchange.futures_url is None
    assert settings.policy.valid_for_s == 30
    assert check(settings) == []


def test_environment_wins_over_files_and_files_over_defaults(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        {"METRICS_PORT": "9100", "APPLY_PERMIT_WAIT_MS": "900"},
        config="account: alpha\nmetrics:\n  port: 9000\nhorizons:\n  fence_margin_ms: 2500\n",
        policy="valid_for_s: 45\npermit_wait_ms: 800\n",
        universe="usdm: [SOLUSDT]\n",
    )
    assert (settings.metrics.port, settings.policy.permit_wait_ms) == (9100, 900)
    assert (settings.account, settings.horizons.fence_margin_ms, settings.policy.valid_for_s) == ("alpha", 2500, 45)
    assert (settings.universe.usdm, settings.universe.spot) == (("SOLUSDT",), ("BTCUSDT", "ETHUSDT"))


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    settings = load(tmp_path, {"METRICS_PORT": "9100"}, config="account: alpha\n")
    source = {row.field: row.source for row in describe(settings)}
    assert source["metrics.port"] == "env:METRICS_PORT"
    assert source["account"] == str(tmp_path / "config" / "config.yaml")
    assert source["retry.max_attempts"] == "default"


def test_named_config_folder_must_exist(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path, {"FILLONCE_CONFIG": "nowhere"})
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.yaml").write_text("account: beta\n")
    assert load(tmp_path, {"FILLONCE_CONFIG": "here"}).account == "beta"


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, config="# nothing\n", policy="") == load(tmp_path, config="", policy="---\n")


def test_committed_files_are_valid_and_sane() -> None:
    assert check(load_settings({"HOME": "/home/me"}, ROOT)) == []


def test_home_is_absolute_and_may_begin_with_a_tilde(tmp_path: Path) -> None:
    assert load(tmp_path, {"FILLONCE_HOME": "~/data"}).stores.home == Path("/home/me/data")
    assert load(tmp_path, {"XDG_DATA_HOME": "/xdg"}).stores.home == Path("/xdg/fillonce")
    assert "FILLONCE_HOME: stores.home must be an absolute path" in refusal(tmp_path, {"FILLONCE_HOME": "data"})


# Strictness


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acount: x\n", ["config.yaml: unknown key 'acount'", "did you mean 'account'?"]),
        ("horizons:\n  fence_margin: 1\n", ["unknown key 'horizons.fence_margin'", "did you mean 'fence_margin_ms'?"]),
        ("zzz: 1\n", ["unknown key 'zzz'", "valid: account, alerts, breaker, exchange"]),
        ("sources: {}\n", ["unknown key 'sources'"]),
        ("permits_bypassed: true\n", ["unknown key 'permits_bypassed'"]),
        ("account: a\naccount: b\n", ["line 2", "'account' stands twice"]),
        ("metrics:\n  port: 1\n  port: 2\n", ["line 3", "'port' stands twice"]),
        ("1: x\n", ["key 1 is not text"]),
        ("- a\n", ["must hold keys and values"]),
        ("metrics: 8000\n", ["metrics must hold keys and values"]),
        ("a: [\n", ["config.yaml, line"]),
        ("account: !!python/name:os.system x\n", ["config.yaml, line 1"]),
        ("metrics:\n  port: '8000'\n", ["config.yaml: metrics.port", "valid integer"]),
        ("metrics:\n  port: true\n", ["metrics.port", "valid integer"]),
        ("metrics:\n  port: 8000.0\n", ["metrics.port"]),
        ("metrics:\n  port: 70000\n", ["metrics.port", "65535"]),
        ("metrics:\n  port: 0100\n", ["metrics.port"]),
        ("retry:\n  max_attempts:\n", ["retry.max_attempts"]),
        ("horizons:\n  fence_margin_ms: 0\n", ["horizons.fence_margin_ms", "greater than or equal to 1"]),
        ("poll:\n  weight_share: 1.5\n", ["poll.weight_share"]),
        ("account: with space\n", ["account"]),
        ("account: abcdefghijklmnopq\n", ["account"]),
        ('account: "main\\n"\n', ["account"]),
        ("mode: papre\n", ["did you mean 'paper'?"]),
        ("stores:\n  appendfsync: no\n", ["stores.appendfsync"]),
    ],
)
def test_file_that_is_wrong_is_refused_by_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    said = refusal(tmp_path, config=text)
    assert [word for word in words if word not in said] == [], said


def test_file_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'policy.yaml'?" in refusal(tmp_path, polcy="valid_for_s: 3\n")


def test_symbol_named_twice_is_refused(tmp_path: Path) -> None:
    assert "universe.usdm names a symbol twice" in refusal(tmp_path, universe="usdm: [BTCUSDT, BTCUSDT]\n")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"TESTNET": "maybe", "REDIS_URL": ""}, config="a_key: 1\n", policy="b_key: 1\n")
    assert len(said.splitlines()) == 4


def test_shares_are_exact_decimals(tmp_path: Path) -> None:
    assert load(tmp_path, config="poll:\n  weight_share: 0.15\n").poll.weight_share == Decimal("0.15")


@pytest.mark.parametrize(
    "name",
    [
        *("REDIS_URL", "DATABASE_URL", "TRADING_MODE", "TESTNET", "FILLONCE_ACCOUNT", "FILLONCE_HOME"),
        *("FILLONCE_CONFIG", "BINANCE_API_KEY", "BINANCE_API_SECRET_FILE", "METRICS_PORT"),
    ],
)
def test_variable_that_is_set_but_empty_is_refused(tmp_path: Path, name: str) -> None:
    assert name in refusal(tmp_path, {name: ""})


@pytest.mark.parametrize("text", ["80.5", "-1", "0x10", " 8000", "eight", "٨"])
def test_number_in_a_variable_must_be_a_whole_number(tmp_path: Path, text: str) -> None:
    assert "METRICS_PORT must be a whole number" in refusal(tmp_path, {"METRICS_PORT": text})


def test_misspelled_variable_is_refused(tmp_path: Path) -> None:
    """FILLONCE_ACOUNT=second would trade as `main`."""
    assert "did you mean 'FILLONCE_ACCOUNT'?" in refusal(tmp_path, {"FILLONCE_ACOUNT": "second"})
    assert "did you mean 'BINANCE_API_SECRET'?" in refusal(tmp_path, {"BINANCE_API_SECRETS": "x"})
    assert load(tmp_path, {"FILLONCE_FAULTS": "x", "BINANCE_TESTNET": "x", "ACCOUNT": "x"}).account == "main"


# The mode


@pytest.mark.parametrize("text", ["true", "1", "yes", "TRUE", "Yes"])
def test_testnet_true_means_mode_testnet_with_permits_bypassed(tmp_path: Path, text: str) -> None:
    settings = load(tmp_path, {"TESTNET": text})
    assert (settings.mode, settings.permits_bypassed) == (TradingMode.TESTNET, True)


@pytest.mark.parametrize("text", ["false", "0", "no", "False"])
def test_testnet_false_bypasses_nothing(tmp_path: Path, text: str) -> None:
    settings = load(tmp_path, {**TESTNET, "TESTNET": text})
    assert (settings.mode, settings.permits_bypassed) == (TradingMode.TESTNET, False)


@pytest.mark.parametrize("text", ["ture", "on", "off", "y", "2", " true", "testnet"])
def test_testnet_that_is_neither_yes_nor_no_refuses_to_start(tmp_path: Path, text: str) -> None:
    assert "refusing to guess" in refusal(tmp_path, {"TESTNET": text})


def test_testnet_and_another_mode_contradict_each_other(tmp_path: Path) -> None:
    assert "contradicts" in refusal(tmp_path, {"TESTNET": "true", "TRADING_MODE": "paper"})


@pytest.mark.parametrize("text", ["Paper", "LIVE ", "demo", "paper\n"])
def test_mode_that_is_not_exactly_a_mode_is_refused(tmp_path: Path, text: str) -> None:
    assert "TRADING_MODE" in refusal(tmp_path, {"TRADING_MODE": text})


def test_live_is_refused_with_its_reason(tmp_path: Path) -> None:
    assert "permits and gates" in refusal(tmp_path, {"TRADING_MODE": "live"})


@pytest.mark.parametrize("store", [{"REDIS_URL": "redis://db.example"}, {"DATABASE_URL": POSTGRES}])
def test_whoever_names_a_store_must_name_the_mode(tmp_path: Path, store: dict[str, str]) -> None:
    assert "TRADING_MODE is not set" in refusal(tmp_path, store)
    assert load(tmp_path, {**store, "TRADING_MODE": "dry_run"}).mode is TradingMode.DRY_RUN


def test_store_named_in_a_file_needs_the_mode_too(tmp_path: Path) -> None:
    assert "TRADING_MODE is not set" in refusal(tmp_path, config="stores:\n  redis_url: redis://db.example\n")


# URLs


def test_testnet_has_its_own_urls(tmp_path: Path) -> None:
    exchange = load(tmp_path, TESTNET).exchange
    assert exchange.futures_url == "https://testnet.binancefuture.com/fapi"
    assert exchange.spot_url == "https://testnet.binance.vision/api"


@pytest.mark.parametrize(
    ("mode", "url", "fault"),
    [
        ("paper", "http://127.0.0.1:9000/fapi", None),
        ("paper", "http://localhost/fapi", None),
        ("paper", "http://[::1]:9000/fapi", None),
        ("paper", "https://fapi.binance.com/fapi", "local exchange only"),
        ("paper", "http://127.0.0.1.evil.example/fapi", "loopback only"),
        ("paper", "http://127.0.0.1:9000/api", "must end in /fapi"),
        ("paper", "http://127.0.0.1:9000/fapi/", "must end in /fapi"),
        ("paper", "http://127.0.0.1:99999/fapi", "must be an http"),
        ("paper", "http://u:p@127.0.0.1/fapi", "no user"),
        ("paper", "ftp://127.0.0.1/fapi", "must be an http"),
        ("testnet", "https://testnet.binancefuture.com/fapi", None),
        ("testnet", "http://testnet.binancefuture.com/fapi", "use https"),
        ("testnet", "https://fapi.binance.com/fapi", "no testnet host"),
        ("dry_run", "https://fapi.binance.com/fapi", None),
        ("live", "https://fapi.binance.com/fapi", None),
        ("live", "https://fapi.binance.com:8443/fapi", "not Binance's own host"),
        ("live", "https://fapi.binance.com.evil.example/fapi", "not Binance's own host"),
        ("live", "https://testnet.binancefuture.com/fapi", "not Binance's own host"),
        ("live", "http://127.0.0.1:9000/fapi", "not Binance's own host"),
    ],
)
def test_exchange_url_must_fit_its_mode(mode: str, url: str, fault: str | None) -> None:
    said = exchange_url_error(url, suffix="/fapi", mode=TradingMode(mode))
    assert said is None if fault is None else said is not None and fault in said


def test_real_exchange_is_refused_in_mode_paper(tmp_path: Path) -> None:
    assert "local exchange only" in refusal(tmp_path, {"BINANCE_SPOT_URL": "https://api.binance.com/api"})


def test_local_exchange_is_filled_in_and_checked(tmp_path: Path) -> None:
    settings = load(tmp_path)
    filled = settings.with_exchange(futures_url="http://127.0.0.1:9/fapi", spot_url="http://127.0.0.1:9/api")
    assert filled.exchange.futures_url == "http://127.0.0.1:9/fapi"
    assert settings.exchange.futures_url is None
    with pytest.raises(ValidationError, match="local exchange only"):
        settings.with_exchange(futures_url="https://fapi.binance.com/fapi", spot_url="http://127.0.0.1:9/api")


@pytest.mark.parametrize(
    ("name", "url", "fault"),
    [
        ("REDIS_URL", "http://x", "must begin with redis://"),
        ("REDIS_URL", "localhost:6379", "must begin with redis://"),
        ("DATABASE_URL", "postgresql://x/y", "write postgresql+psycopg://"),
        ("DATABASE_URL", "mysql://x/y", "must begin with sqlite://"),
        ("DATABASE_URL", "sqlite://", "in memory"),
        ("DATABASE_URL", "sqlite:///:memory:", "in memory"),
    ],
)
def test_store_url_that_cannot_serve_is_refused(tmp_path: Path, name: str, url: str, fault: str) -> None:
    assert fault in refusal(tmp_path, {name: url, "TRADING_MODE": "paper"})


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h:1/2", "unix:///run/r.sock?db=0", "redis+sentinel://a:1,b:2/m"]
)
def test_redis_urls_of_every_kind_are_taken(tmp_path: Path, url: str) -> None:
    stores = load(tmp_path, {"REDIS_URL": url, "TRADING_MODE": "paper"}).stores
    assert stores.redis_url is not None
    assert stores.redis_url.reveal() == url
    assert not stores.are_embedded


# Secrets


def test_secrets_never_print(tmp_path: Path) -> None:
    settings = load(tmp_path, {**TESTNET, "DATABASE_URL": POSTGRES, "REDIS_URL": f"redis://:{HUSH}@h?password={HUSH}"})
    shown = [repr(settings), str(settings), f"{settings.exchange.api_secret}", f"{settings.stores.database_url!r}"]
    shown += [settings.model_dump_json(), str(settings.model_dump()), str(describe(settings)), config_hash(settings)]
    assert [text for text in shown if HUSH in text] == []
    assert settings.exchange.api_secret is not None
    assert settings.exchange.api_secret.reveal() == HUSH


def test_store_url_shows_everything_but_the_password() -> None:
    assert str(StoreUrl(POSTGRES)) == "postgresql+psycopg://***@db.example/journal"
    assert str(StoreUrl("redis://:a@b@h:1/0")) == "redis://***@h:1/0"
    assert str(StoreUrl("unix:///run/r.sock?db=0&password=x")) == "unix:///run/r.sock?db=0&password=***"
    assert str(StoreUrl("redis://h:1/0")) == "redis://h:1/0"


def test_refusal_never_quotes_a_secret(tmp_path: Path) -> None:
    said = refusal(
        tmp_path, {"DATABASE_URL": f"mysql://me:{HUSH}@h/x", "REDIS_URL": f"{HUSH}", "TRADING_MODE": "paper"}
    )
    assert HUSH not in said


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://hooks.example.com/hush", "plain http is for loopback only"),
        ("ftp://hooks.example.com/hush", "must be an https URL"),
        ("hush", "must be an https URL"),
    ],
)
def test_webhook_that_cannot_take_alerts_is_refused_and_never_quoted(tmp_path: Path, url: str, fault: str) -> None:
    said = refusal(tmp_path, {"ALERT_WEBHOOK_URL": url})
    assert fault in said
    assert "hush" not in said
    for good in ("https://hooks.example.com/hush", "http://127.0.0.1:9/hush"):
        assert "hush" not in repr(load(tmp_path, {"ALERT_WEBHOOK_URL": good}))


@pytest.mark.parametrize(("word", "state"), [("HALT", "halt"), (" Reduce_Only ", "reduce_only"), ("true", "true")])
def test_kill_switch_of_the_environment_is_one_of_the_words(tmp_path: Path, word: str, state: str) -> None:
    assert load(tmp_path, {"FILLONCE_KILL_SWITCH": word}).kill_switch.state == state
    assert "refusing to guess" in refusal(tmp_path, {"FILLONCE_KILL_SWITCH": "maybe"})


def test_secrets_compare_by_value_and_kind() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert StoreUrl("a") != Secret("a")
    assert len({Secret("a"), Secret("a")}) == 1


def test_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{HUSH}\n")
    env = {"TRADING_MODE": "testnet", "BINANCE_API_KEY": "k", "BINANCE_API_SECRET_FILE": str(tmp_path / "secret")}
    settings = load(tmp_path, env)
    assert settings.exchange.api_secret == Secret(HUSH)
    assert "both set" in refusal(tmp_path, {**env, "BINANCE_API_SECRET": "other"})


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 70_000], ids=["empty", "blank", "binary", "long"])
def test_secret_file_that_holds_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert "BINANCE_API_SECRET_FILE" in refusal(tmp_path, {"BINANCE_API_SECRET_FILE": str(tmp_path / "secret")})


def test_secret_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path, {"BINANCE_API_KEY_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "text",
    [
        f"exchange:\n  api_secret: {HUSH}\n",
        f"exchange:\n  api_key: {HUSH}\n",
        f"mode: paper\nstores:\n  database_url: postgresql+psycopg://me:{HUSH}@h/x\n",
    ],
)
def test_secret_in_a_file_of_settings_is_refused(tmp_path: Path, text: str) -> None:
    said = refusal(tmp_path, config=text)
    assert "does not belong in this file" in said
    assert HUSH not in said


# Frozen, and handed on


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(ValidationError):
        settings.account = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.guard.lease_ttl_ms = 1  # type: ignore[misc]


def test_child_process_loads_exactly_the_same(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file")
    env = {"HOME": "/home/me", "PATH": "/bin", "TESTNET": "yes", "BINANCE_API_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("account: alpha\nretry:\n  max_attempts: 7\n")
    settings = load_settings(env, tmp_path)
    settings = settings.with_stores(redis_url="unix:///r.sock?db=0", database_url="sqlite:////j.db")
    child = child_environment(settings, env)
    assert child["PATH"] == "/bin"
    again = load_settings(child, Path("/"))
    assert again.model_copy(update={"sources": {}}) == settings.model_copy(update={"sources": {}})


def test_settings_survive_pickling(tmp_path: Path) -> None:
    settings = load(tmp_path, TESTNET)
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes


# The hash


def test_hash_ignores_form_order_place_and_who_set_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = load(tmp_path / "a", config="account: x\nmetrics: {port: 9000}\npoll: {weight_share: 0.10}\n")
    two = load(tmp_path / "b", {"METRICS_PORT": "9000", "HOME": "/home/you"}, config="# note\naccount:   x\n")
    assert config_hash(one) == config_hash(two)
    assert len(config_hash(one)) == 64
    assert short_hash(one) == config_hash(one)[:16]


def test_hash_sees_every_field(tmp_path: Path) -> None:
    """Defaults count too: a changed default is a changed configuration."""
    base = load(tmp_path, TESTNET)
    seen = {config_hash(base)}
    count = 0
    for name in set(Settings.model_fields) - {"sources", "config_folder"}:
        group = getattr(base, name)
        if not isinstance(group, BaseModel):
            seen.add(config_hash(base.model_copy(update={name: "other"})))
            count += 1
            continue
        for part in set(type(group).model_fields) - {"home", "port", "host", "http_token", "api_key", "api_secret"}:
            seen.add(config_hash(base.model_copy(update={name: group.model_copy(update={part: "other"})})))
            count += 1
    assert len(seen) == count + 1


def test_hash_sees_whether_a_secret_is_set_and_neither_its_value_nor_how_it_came(tmp_path: Path) -> None:
    """`fillonce up` hands on from a variable what it has read from a file."""
    (tmp_path / "key").write_text("k")
    base = load(tmp_path, TESTNET)
    rotated = load(tmp_path, {**TESTNET, "BINANCE_API_SECRET": "another"})
    moved = load(
        tmp_path,
        {"TRADING_MODE": "testnet", "BINANCE_API_KEY_FILE": str(tmp_path / "key"), "BINANCE_API_SECRET": HUSH},
    )
    assert config_hash(rotated) == config_hash(base)
    assert config_hash(moved) == config_hash(base)
    assert config_hash(load(tmp_path, {"TRADING_MODE": "testnet"})) != config_hash(base)
    assert config_hash(load(tmp_path, {**TESTNET, "ALERT_WEBHOOK_URL": "https://h/x"})) != config_hash(base)


@pytest.mark.parametrize("mode", ["paper", "dry_run"])
def test_hash_is_the_same_wherever_the_local_exchange_listens(tmp_path: Path, mode: str) -> None:
    """What `fillonce up` finds and hands on to its children is no other configuration than its own."""
    settings = load(tmp_path, {"TRADING_MODE": mode})
    found = settings.with_exchange(
        futures_url="http://127.0.0.1:9/fapi", spot_url="http://127.0.0.1:9/api", api_key="paper", api_secret=HUSH
    )
    child = load_settings(child_environment(found, {}), tmp_path)
    assert child.exchange.futures_url == "http://127.0.0.1:9/fapi"
    assert config_hash(found) == config_hash(child) == config_hash(settings)


def test_hash_sees_an_exchange_that_is_not_the_local_one(tmp_path: Path) -> None:
    real = {"BINANCE_FUTURES_URL": "https://fapi.binance.com/fapi"}
    dry = {"TRADING_MODE": "dry_run"}
    assert config_hash(load(tmp_path, {**dry, **real})) != config_hash(load(tmp_path, dry))
    local = {"BINANCE_FUTURES_URL": "http://127.0.0.1:9/fapi"}
    assert config_hash(load(tmp_path, {**TESTNET, **local})) != config_hash(load(tmp_path, TESTNET))


def test_hash_of_the_exporter_is_that_of_the_workers(tmp_path: Path) -> None:
    """Its unit has a port and may have a token; the supervisor's has neither."""
    exporter = load(tmp_path, {"METRICS_PORT": "8000", "FILLONCE_KILL_SWITCH_TOKEN": "x" * 32})
    assert config_hash(exporter) == config_hash(load(tmp_path, {"METRICS_PORT": "0"}))


# Sanity


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("guard: {lease_renew_ms: 2000}", "guard.lease_renew_ms"),
        ("guard: {result_ttl_s: 120}", "guard.result_ttl_s"),
        ("guard: {namespace: circuit_breaker}", "guard.namespace"),
        ("exchange: {recv_window_ms: 5001}", "exchange.recv_window_ms"),
        ("exchange: {pin_to_send_limit_ms: 3000}", "exchange.pin_to_send_limit_ms"),
        ("exchange: {outer_deadline_ms: 14999}", "exchange.outer_deadline_ms"),
        ("exchange: {clock_refresh_s: 60}", "exchange.clock_refresh_s"),
        ("horizons: {fence_margin_ms: 1999}", "horizons.fence_margin_ms"),
        ("horizons: {absent_answers: 2}", "horizons.absent_answers"),
        ("horizons: {absent_spread_usdm_ms: 4999}", "horizons.absent_spread_usdm_ms"),
        ("horizons: {absent_spread_spot_ms: 9999}", "horizons.absent_spread_spot_ms"),
        ("horizons: {absent_spread_algo_ms: 29999}", "horizons.absent_spread_algo_ms"),
        ("horizons: {all_orders_lookback_ms: 59999}", "horizons.all_orders_lookback_ms"),
        ("horizons: {max_read_lag_ms: 14999}", "horizons.max_read_lag_ms"),
        ("horizons: {opening_read_lag_ms: 14999}", "horizons.opening_read_lag_ms"),
        ("horizons: {healthy_for_ms: 29999}", "horizons.healthy_for_ms"),
        ("horizons: {absent_spread_spot_ms: 16000}", "horizons.max_read_lag_ms"),
        ("exchange: {outer_deadline_ms: 30001}", "horizons.healthy_for_ms"),
        ("horizons: {quarantine_after_ms: 35000}", "horizons.quarantine_after_ms"),
        ("retry: {backoff_base_ms: 30001}", "retry.backoff_base_ms"),
    ],
)
def test_horizons_that_do_not_fit_together_are_named_with_their_remedy(tmp_path: Path, text: str, field: str) -> None:
    problems = check(load(tmp_path, TESTNET, config=text))
    assert [problem.field for problem in problems] == [field]
    assert problems[0].remedy


def test_validity_must_leave_time_to_send(tmp_path: Path) -> None:
    assert [problem.field for problem in check(load(tmp_path, policy="valid_for_s: 4\n"))] == ["policy.valid_for_s"]


def test_a_universe_without_symbols_is_a_problem(tmp_path: Path) -> None:
    assert [p.field for p in check(load(tmp_path, universe="usdm: []\nspot: []\n"))] == ["universe.usdm"]


@pytest.mark.parametrize("token", ["x" * 31, "x" * 31 + "é", "two words " * 4])
def test_token_that_can_be_guessed_or_not_be_sent_is_a_problem_and_is_not_quoted(tmp_path: Path, token: str) -> None:
    (problem,) = check(load(tmp_path, {"FILLONCE_KILL_SWITCH_TOKEN": token}))
    assert problem.field == "kill_switch.http_token"
    assert token not in str(problem)
    assert check(load(tmp_path, {"FILLONCE_KILL_SWITCH_TOKEN": "x" * 32})) == []


def test_token_in_a_file_of_settings_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, config=f"kill_switch: {{http_token: {HUSH * 3}}}")
    assert "use FILLONCE_KILL_SWITCH_TOKEN or FILLONCE_KILL_SWITCH_TOKEN_FILE" in said
    assert HUSH not in said


def test_testnet_needs_both_halves_of_its_credentials(tmp_path: Path) -> None:
    assert [p.field for p in check(load(tmp_path, {"TRADING_MODE": "testnet"}))] == ["exchange.api_key"]
    half = {"TRADING_MODE": "testnet", "BINANCE_API_KEY": "k"}
    assert [p.field for p in check(load(tmp_path, half))] == ["exchange.api_secret"]


SCALED = """
exchange: {recv_window_ms: 300, pin_to_send_limit_ms: 50, connect_timeout_ms: 300, read_timeout_ms: 600,
  outer_deadline_ms: 1000, clock_refresh_s: 1, clock_max_age_s: 5}
horizons: {fence_margin_ms: 100, absent_answers: 2, absent_spread_usdm_ms: 200, absent_spread_spot_ms: 300,
  absent_spread_algo_ms: 500, all_orders_lookback_ms: 5000, max_read_lag_ms: 500, quarantine_after_ms: 5000,
  healthy_for_ms: 1000}
"""


def test_scaled_down_horizons_are_for_the_local_exchange_only(tmp_path: Path) -> None:
    local = {"BINANCE_FUTURES_URL": "http://127.0.0.1:9/fapi", "BINANCE_SPOT_URL": "http://127.0.0.1:9/api"}
    assert check(load(tmp_path, local, config=SCALED)) == []
    assert len(check(load(tmp_path, {**TESTNET, **local}, config=SCALED))) == 8
    assert len(check(load(tmp_path, {"TRADING_MODE": "dry_run"}, config=SCALED))) == 8


def test_books_are_opened_from_answers_as_old_as_any_except_on_the_local_exchange(tmp_path: Path) -> None:
    slow = "horizons: {max_read_lag_ms: 16000}"
    assert opening_read_lag_ms(load(tmp_path, TESTNET, config=slow)) == 16_000
    assert opening_read_lag_ms(load(tmp_path, {"TRADING_MODE": "dry_run"}, config=slow)) == 16_000
    assert opening_read_lag_ms(load(tmp_path, config=slow)) == 500
    assert opening_read_lag_ms(load(tmp_path, config="horizons: {opening_read_lag_ms: 3000}")) == 3_000


# The documentation


def test_reference_page_names_every_setting_with_its_default(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = {row.field: row.value for row in describe(load(tmp_path))}
    for field in ("mode", "stores.home", "config_folder", "permits_bypassed"):
        del rows[field]  # not constant, or no key of a file
    missing = []
    for field, value in rows.items():
        file, key = ("config.yaml", field)
        if field.startswith(("policy.", "universe.")):
            file, key = field.split(".")[0] + ".yaml", field.split(".")[1]
        shown = "unset" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
        if f"| {file} | `{key}` | {shown} |" not in page:
            missing.append(f"| {file} | `{key}` | {shown} |")
    assert missing == []


def test_reference_page_names_every_variable() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    assert [name for name in sorted(known_names()) if f"`{name}`" not in page] == []


# Light


def test_loading_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, json; from pathlib import Path; from app.settings import load_settings\n"
        "load_settings({'HOME': '/home/me'}, Path('/'))\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules} & {'yaml', 'redis', 'rq', 'sqlalchemy'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == []
