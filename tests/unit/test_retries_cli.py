"""What `fillonce retries` makes of what it is told, and of what an exchange may have answered."""

import pytest
import typer

from app.cli.retries import _cell, _wanted, since_ms


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2019 Margin is insufficient", "@x", "\tx"])
def test_text_that_a_spreadsheet_would_take_for_a_formula_is_quoted(text: str) -> None:
    assert _cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["plain", 5, None, -5, ""])
def test_other_values_stay_as_they_are(value: object) -> None:
    assert _cell(value) == value


def test_instant_and_duration_are_understood() -> None:
    assert since_ms("2026-11-21T08:00:00Z") == 1_795_248_000_000
    assert since_ms("1h") > since_ms("2h")


@pytest.mark.parametrize("text", ["yesterday", "2026-11-21T08:00:00", "", "5x"])
def test_what_is_neither_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2026-11-21T08:00:00Z"):
        since_ms(text)


@pytest.mark.parametrize(
    ("type_", "class_", "words"),
    [("orders", None, "order_usdm"), (None, "rate-limited", "rate_limited"), ("ledger", None, "has no attempts")],
)
def test_unknown_type_or_class_is_refused_with_the_known_ones(type_: str, class_: str, words: str) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        _wanted(None, type_, class_, only_retries=False)
