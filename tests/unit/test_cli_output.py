"""How values look in a table for people."""

from decimal import Decimal

from app.cli.output import as_table, cell


def test_yes_and_no_are_words() -> None:
    assert [cell(True), cell(False), cell(0), cell(1)] == ["yes", "no", "0", "1"]


def test_what_could_be_an_escape_sequence_is_shown_as_a_question_mark() -> None:
    assert cell("a\x1b[31mb\tc") == "a?[31mb c"


def test_column_of_numbers_stands_to_the_right_and_any_other_to_the_left() -> None:
    rows = [("a", 5, None, "x"), ("b", 1000, Decimal("1.50"), 7), ("c", None, 3, True)]
    assert as_table(["name", "count", "sum", "mixed"], rows) == [
        "name  count   sum  mixed",
        "a         5     -  x",
        "b      1000  1.50  7",
        "c         -     3  yes",
    ]


def test_table_without_rows_is_its_heading() -> None:
    assert as_table(["a", "b"], []) == ["a  b"]
