"""Commands that become another program: what they look at before they do."""

import json
from pathlib import Path

import pytest

from app.cli import processes
from app.settings import LOCAL_EXCHANGE_FILE, PAPER_KEY, PAPER_SECRET, SettingsError

ADDRESSES = {
    "futures_url": "http://127.0.0.1:9/fapi", "spot_url": "http://127.0.0.1:9/api", "api_key": PAPER_KEY,
    "api_secret": PAPER_SECRET,
}  # fmt: skip


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, list[str]]]:
    """What this process would have become, in a home of its own where nothing is configured."""
    for name in ("BINANCE_FUTURES_URL", "BINANCE_SPOT_URL", "REDIS_URL", "DATABASE_URL", "TRADING_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FILLONCE_HOME", str(tmp_path))
    told: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(processes, "become", lambda module, arguments: told.append((module, [*arguments])))
    return told


def test_reconcile_beside_up_talks_to_the_exchange_that_runs_there(
    became: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    (tmp_path / LOCAL_EXCHANGE_FILE).write_text(json.dumps(ADDRESSES))
    processes.reconcile(once=True)
    assert became == [("workers.reconciler", ["--once"])]


def test_reconcile_without_any_exchange_is_refused(became: list[tuple[str, list[str]]]) -> None:
    with pytest.raises(SettingsError, match="no exchange is named"):
        processes.reconcile(once=True)
    assert became == []
