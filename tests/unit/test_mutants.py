"""The mutants of `make mutants` still fit the code, so that they do not rot unseen between two runs of it."""

import re
from pathlib import Path

import pytest

from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Edit, Mutant, StaleMutantError
from tests.mutants.run import BrokenRunError, Report, Tree, read_report, refuse_bugs
from tests.mutants.table import Caught, render

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "mutants.md"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_code_and_is_still_a_program(mutant: Mutant) -> None:
    for file, text in mutant.texts(ROOT).items():
        assert text != (ROOT / file).read_text()
        if file.endswith(".py"):
            compile(text, file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_tests_that_should_catch_a_mutant_exist(mutant: Mutant) -> None:
    names = [
        name
        for file in mutant.tests
        for name in re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
    ]
    missing = [part for part in mutant.expected.split(" or ") if not any(part in name for name in names)]
    assert missing == []


def test_mutants_have_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 20
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


@pytest.mark.parametrize("text", ["", "old", "an old and an old", "new"])
def test_text_that_is_not_there_exactly_once_is_refused(text: str) -> None:
    edit = Edit(file="x.py", old="old", new="new")
    if text == "old":
        assert edit.of(text) == "new"
        return
    with pytest.raises(StaleMutantError, match=r"x\.py"):
        edit.of(text)


def test_a_mutant_that_nothing_catches_is_called_a_survivor() -> None:
    mutant = MUTANTS[0]
    for tests, by_search, is_caught in (((), None, False), ((), False, False), ((), True, True), (("t",), False, True)):
        one = Caught(mutant=mutant, tests=tests, by_search=by_search, seconds=1)
        assert one.is_caught == is_caught
        assert ("it survived" in render([one])) != is_caught


def test_report_of_a_run_names_what_failed_once_and_why(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase name='good'/>"
        "<testcase name='bad'><failure message='assert 1 == 2'/></testcase>"
        "<testcase name='worse'><error message='NameError: x'/></testcase></testsuite></testsuites>"
    )
    assert read_report(report) == Report(passed=1, failed=("bad", "worse"), messages=("assert 1 == 2", "NameError: x"))


@pytest.mark.parametrize("message", ["NameError: name 'x' is not defined", "ImportError: cannot import name 'y'"])
def test_mutant_that_fails_for_being_badly_written_is_not_called_caught(message: str) -> None:
    with pytest.raises(BrokenRunError, match=MUTANTS[0].name):
        refuse_bugs(MUTANTS[0], Report(passed=1, failed=("t",), messages=("assert 1 == 2", message)))
    refuse_bugs(MUTANTS[0], Report(passed=1, failed=("t",), messages=("assert 1 == 2",)))


def test_mutant_is_made_in_a_copy(tmp_path: Path) -> None:
    original = tmp_path / "original"
    (original / "app").mkdir(parents=True)
    (original / ".git").mkdir()
    (original / ".git" / "config").write_text("private")
    (original / "app" / "x.py").write_text("old = 1\n")
    edit = Edit(file="app/x.py", old="old", new="new")
    mutant = Mutant(name="m", breaks="b", harm="h", expected="e", edits=(edit,))

    copy = Tree(tmp_path / "copy", original)
    mutant.apply(copy.root)

    assert (copy.root / "app" / "x.py").read_text() == "new = 1\n"
    assert (original / "app" / "x.py").read_text() == "old = 1\n"
    assert not (copy.root / ".git").exists()


def test_page_of_the_documentation_has_a_line_for_every_mutant_and_no_other() -> None:
    listed = re.findall(r"^\| ([a-z0-9_]+) \| .*\|$", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(mutant.name for mutant in MUTANTS)
    assert "it survived" not in PAGE.read_text()
