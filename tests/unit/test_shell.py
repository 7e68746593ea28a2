"""The project's shell: its Makefile, its CI script, its documents, and what must never be written into any of them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache"}
NOT_OURS |= {"__pycache__", "var", "dist"}


def _files() -> Iterator[Path]:
    for folder, inner, names in os.walk(ROOT):
        inner[:] = sorted(set(inner) - NOT_OURS)
        yield from (Path(folder, name) for name in sorted(names))


def _pages() -> list[Path]:
    return [path for path in _files() if path.suffix == ".md"]


def _run(
    *command: str | Path, environment: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    # The variables of an outer make or pytest are not for the inner one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def _program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_ci_ends_with_the_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = [line.strip().removeprefix("$ ") for line in readme.splitlines()]
    last_step = (ROOT / ".ci" / "run").read_text().rstrip().splitlines()[-1]
    assert last_step == "make test"
    assert last_step in [command.partition(" #")[0].rstrip() for command in commands]


@pytest.mark.parametrize("failing", ["install", "lint", "check-ops", "test", "nothing"])
def test_ci_fails_at_the_first_step_that_fails_and_passes_otherwise(tmp_path: Path, failing: str) -> None:
    steps = ["install", "lint", "check-ops", "test"]
    _program(tmp_path / "make", f'echo "$1"; [ "$1" != {failing} ]')
    ran = _run("bash", ROOT / ".ci" / "run", environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, cwd=tmp_path)
    expected = steps if failing == "nothing" else steps[: steps.index(failing) + 1]
    assert ran.stdout.split() == expected
    assert (ran.returncode == 0) == (failing == "nothing")


def test_plain_make_lists_every_target_and_each_has_a_recipe() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.MULTILINE)
    listed = _run("make")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == targets
    for target in targets:
        dry = _run("make", "--dry-run", target)
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout


def test_a_second_install_has_nothing_to_do_until_lock_or_project_change(tmp_path: Path) -> None:
    """Asked of a copy, in a folder with a space in its name, with stamps in place of an installation."""
    copy = tmp_path / "a clone"
    copy.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (copy / name).write_text((ROOT / name).read_text())

    def steps() -> str:
        asked = _run("make", "--dry-run", "install", cwd=copy)
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    planned = steps()
    assert "--require-hashes" in planned
    assert "--editable" in planned
    (copy / ".venv").mkdir()
    for stamp in re.findall(r"touch (\.venv/\S+)", planned):
        (copy / stamp).touch()
    assert "pip" not in steps()

    with (copy / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert "--editable" in steps()
    assert "--require-hashes" not in steps()

    with (copy / "requirements.txt").open("a") as lock:
        lock.write("# changed\n")
    assert "--require-hashes" in steps()


# --- which Python -----------------------------------------------------------------------------------------------------


def _python(folder: Path, name: str, version: tuple[int, int] = (3, 11), *, bare: bool = False) -> None:
    """Put a real Python into `folder` that takes itself for another version, or lacks ensurepip as Debian's does."""
    disguise = folder / f"{name} disguise"
    disguise.mkdir(parents=True)
    (disguise / "sitecustomize.py").write_text(f"import sys\nsys.version_info = ({version[0]}, {version[1]}, 0)\n")
    if bare:
        (disguise / "ensurepip.py").write_text("raise ModuleNotFoundError(__name__)\n")
    _program(folder / name, f'PYTHONPATH="{disguise}" exec "{sys.executable}" "$@"')


def _find_python(folder: Path, *asked: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return _run("/bin/sh", ROOT / "ops" / "find-python.sh", *asked, environment={"PATH": str(folder)})


def test_the_newest_python_that_runs_is_taken(tmp_path: Path) -> None:
    _program(tmp_path / "python3.13", "echo 'python3.13: command not found' >&2; exit 127")
    _python(tmp_path, "python3.12", (3, 12))
    _python(tmp_path, "python3.11", (3, 11))
    _python(tmp_path, "python3", (3, 9))
    assert _find_python(tmp_path).stdout == "python3.12\n"


def test_a_python_that_cannot_make_environments_is_passed_over(tmp_path: Path) -> None:
    _python(tmp_path, "python3.13", (3, 13), bare=True)
    _python(tmp_path, "python3")
    assert _find_python(tmp_path).stdout == "python3\n"


@pytest.mark.parametrize(
    ("name", "version", "package"),
    [("python3", (3, 11), "python3-venv"), ("python3.12", (3, 12), "python3.12-venv")],
)
def test_a_missing_ensurepip_is_named_with_its_remedy(
    tmp_path: Path, name: str, version: tuple[int, int], package: str
) -> None:
    _python(tmp_path, name, version, bare=True)
    found = _find_python(tmp_path)
    assert found.returncode == 1
    assert found.stdout == ""
    assert f"apt install {package}\n" in found.stderr


def test_a_python_too_old_is_named(tmp_path: Path) -> None:
    _python(tmp_path, "python3", (3, 9))
    found = _find_python(tmp_path)
    assert found.returncode == 1
    assert "needs Python 3.11 or newer, and python3 is 3.9." in found.stderr


def test_no_python_at_all_is_said(tmp_path: Path) -> None:
    found = _find_python(tmp_path)
    assert found.returncode == 1
    assert "no python3 that runs" in found.stderr


def test_the_python_asked_for_is_taken_and_no_other_in_its_place(tmp_path: Path) -> None:
    _python(tmp_path, "python3.13", (3, 13))
    _python(tmp_path / "of mine", "python3", (3, 12))
    mine = str(tmp_path / "of mine" / "python3")
    assert _find_python(tmp_path, mine).stdout == f"{mine}\n"
    absent = _find_python(tmp_path, "python3.10")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "python3.10 does not run" in absent.stderr


# --- ops --------------------------------------------------------------------------------------------------------------


_ROUTES = """case "$*" in
    *severity=critical) echo pager,slack;; *severity=warning) echo slack;; *severity=info) echo slack-quiet;;
    *severity=none) echo watchdog;;
esac"""
_EXPOSED = 'case "$1" in security) echo "Overall exposure level for $4: {} X";; esac'


def test_files_for_operation_are_checked_by_their_own_tool(tmp_path: Path) -> None:
    """With stand-ins for the tools: what they are asked, and that their no is a no."""
    shutil.copytree(ROOT / "ops", tmp_path / "ops")
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def checked(**stand_ins: str) -> "subprocess.CompletedProcess[str]":
        good = {"promtool": 'echo "asked: $*"', "amtool": _ROUTES, "systemd_analyze": _EXPOSED.format("2.5")}
        for name, body in {**good, **stand_ins}.items():
            _program(tmp_path / "bin" / name.replace("_", "-"), body)
        return _run("bash", tmp_path / "ops" / "check-ops.sh", environment=path)

    well = checked()
    assert well.returncode == 0, well.stderr
    assert "asked: check rules prometheus/fillonce.rules.yml\n" in well.stdout
    assert "asked: test rules prometheus/fillonce.test.yml\n" in well.stdout
    assert checked(promtool="exit 1").returncode == 1
    assert checked(amtool="echo pager").returncode == 1, "an alert that goes to others"
    assert checked(systemd_analyze="echo 'Unknown key, ignoring' >&2").returncode == 1
    assert checked(systemd_analyze=_EXPOSED.format("2.6")).returncode == 1


# --- what is written --------------------------------------------------------------------------------------------------

# Written so that no pattern finds itself.
PRIVATE = {
    "a path of one machine": r"(?<![\w.~/-])/(?:work|root|home/(?!me/)[a-z][\w-]*|Users/[a-z][\w-]*)/[\w.]",
    "a package index": r"py[p]i\.|python[h]osted|https?://[^\s\"'<>]+/simple\b",
    "an option that names an index": r"(?<!emit-)(?:index-ur[l]|find-link[s]|trusted-hos[t])\b",
}


def test_no_text_names_a_machine_or_a_package_index() -> None:
    found = []
    for path in _files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for what, pattern in PRIVATE.items():
            found += [f"{path.relative_to(ROOT)}: {what}: {hit[0]}" for hit in re.finditer(pattern, text)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /work" + "/main/app",
        "in /root" + "/.cache",
        "/home" + "/ann/fillonce",
        "https://py" + "pi.org/p",
        "https://mirror.example" + "/simple",
        "--extra-index" + "-url x",
    ],
)
def test_the_patterns_for_private_text_find_it(text: str) -> None:
    assert any(re.search(pattern, text) for pattern in PRIVATE.values())


def test_the_lock_pins_every_package_with_its_hashes_and_nothing_else() -> None:
    statements = (ROOT / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
    assert len(statements) > 50
    pinned = re.compile(r"[A-Za-z0-9._-]+(?:\[[^\]]+\])?==[^\s;]+(?: ;[^#]+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+")
    assert [statement for statement in statements if not pinned.fullmatch(statement)] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in _pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            file = target.partition("#")[0]
            if file and "://" not in file and not file.startswith("mailto:") and not (page.parent / file).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_page_of_docs_can_be_reached_from_its_index() -> None:
    docs = ROOT / "docs"
    reached: set[Path] = set()
    ahead = [docs / "README.md"]
    while ahead:
        page = ahead.pop()
        # Not by way of a page elsewhere: whoever reads the index must find it.
        if page in reached or not page.is_file() or not page.is_relative_to(docs):
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
        ahead += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert {page for page in _pages() if page.is_relative_to(docs)} - reached == set()


# --- the tests themselves ---------------------------------------------------------------------------------------------


def test_pytest_collects_every_file_that_holds_tests(request: pytest.FixtureRequest) -> None:
    """A test in a file or folder that pytest passes over would be green for ever."""
    holders = {
        str(path.relative_to(ROOT))
        for path in _files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")
        if re.search(r"^\s*(?:async )?def test_", path.read_text(), flags=re.MULTILINE)
    }
    # Too long for the test command; a target of their own names them.
    long = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "chaos").glob("long_*.py")}
    assert "tests/chaos/long_*.py" in (ROOT / "Makefile").read_text()
    collected = {str(item.path.relative_to(ROOT)) for item in request.session.items}
    if holders - collected - long:  # only a part was asked for: look at what the test command would collect
        collected = _collected()
    assert holders - collected - long == set()


def _collected() -> set[str]:
    listing = _run(sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider")
    assert listing.returncode == 0, listing.stdout + listing.stderr
    return {line.split("::")[0].split(": ")[0] for line in listing.stdout.splitlines() if line.startswith("tests")}
