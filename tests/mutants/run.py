"""Run tests on a copy of the tree, with a mutant in it or without, and read what failed from pytest's own report."""

import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.mutant import Mutant, copied_files
from tests.support.redis_server import die_with_parent

BUGS_OF_A_MUTANT = (
    "NameError",
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "IndentationError",
    "UnboundLocal",
)
"""What a badly written mutant raises: it would be caught by any test that merely runs the line."""

_WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")
"""Plugins that cost a second to load and that these tests do not need."""
MAX_FAILED = 3
"""So many tests that turn red are enough to know, and to show."""


class BrokenRunError(Exception):
    """The run says nothing about the tests: it did not start, or ran other code, or ran out of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run of pytest said."""

    passed: int
    failed: Sequence[str] = ()
    messages: Sequence[str] = field(default=(), repr=False)


class Tree:
    """A copy of the whole project in `folder`; nothing is ever changed in the original."""

    def __init__(self, folder: Path, original: Path) -> None:
        self._folder = folder
        self.root = folder / "tree"
        for file in copied_files(original):
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original / file, self.root / file)
        self._environment = {
            **os.environ, "PYTHONPATH": str(self.root), "SIMULATION_SHRINK_RUNS": "0",
        }  # fmt: skip
        self._environment.pop("SIMULATION_EXAMPLES", None)

    def check(self) -> None:
        """Make sure that it is this copy that would be tested.

        Raises:
            BrokenRunError: it is not, or it cannot even be imported.
        """
        ask = "import app.execution.order as one, workers.jobs as two; print(one.__file__, two.__file__, sep='\\n')"
        done = subprocess.run(
            [sys.executable, "-c", ask], cwd=self.root, env=self._environment, text=True, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip
        if done.returncode != 0:
            raise BrokenRunError(f"it cannot be imported:\n{done.stderr[-1500:]}")
        if not all(Path(line).is_relative_to(self.root) for line in done.stdout.split()):
            raise BrokenRunError(f"other code would be tested: {done.stdout}")

    def test(self, what: Sequence[str], *, limit_s: float, test_limit_s: int = 60) -> Report:
        """Run pytest on `what`, in one process. A test that takes longer than `test_limit_s` fails.

        Raises:
            BrokenRunError: it took longer than `limit_s`, or did not come to its end.
        """
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "pytest", "-q", "-n", "0", *_WITHOUT, "--timeout", str(test_limit_s),
            "--maxfail", str(MAX_FAILED), f"--junitxml={report}", f"--basetemp={self._folder / 'temp'}", *what,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=self.root, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one libc call, prepared beforehand
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise BrokenRunError(f"{' '.join(what)} took longer than {limit_s:.0f} s") from None
        finally:
            _end(process)
        if process.returncode not in {0, 1} or not report.exists():
            raise BrokenRunError(f"pytest ended with {process.returncode}:\n{said[-1500:]}")
        return read_report(report)


def read_report(path: Path) -> Report:
    """Read a JUnit file."""
    passed, failed, messages = 0, [], []
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
        bad = [*case.iter("failure"), *case.iter("error")]
        if not bad:
            passed += 1
            continue
        failed.append(case.get("name") or "?")
        messages += [f"{one.get('message') or ''}" for one in bad]
    return Report(passed=passed, failed=tuple(dict.fromkeys(failed)), messages=tuple(messages))


def refuse_bugs(mutant: Mutant, report: Report) -> None:
    """Refuse a mutant that fails for being badly written.

    Raises:
        BrokenRunError: it does.
    """
    for message in report.messages:
        if message.startswith(BUGS_OF_A_MUTANT):
            raise BrokenRunError(f"{mutant.name} is badly written: {message[:300]}")


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
