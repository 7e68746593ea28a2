"""Starts processes of ours from one that has imported everything already, as the supervisor does: 20 ms, not 700.

Run as a program it reads commands, one JSON line each, and answers with one. Its children die with it, and it dies with
the test run.
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.redis_server import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "workers.run", "workers.sweeper", "workers.reconciler", "workers.exporter", "app.cli.main",
    "app.exchange.paper.server", "tests.support.poison",
)  # fmt: skip


class Process:
    """One process; what it writes goes to `log`, and on stderr to `errors`, which may be the same file."""

    def __init__(self, nursery: "Nursery", name: str, pid: int, *, log: Path, errors: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self.errors = errors
        self._nursery = nursery
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._nursery.ask({"do": "poll", "pid": self.pid})["code"]
        return self._code

    def wait(self, timeout_s: int = 60) -> int:
        """Wait until it has ended, and return the exit code."""
        deadline = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"{self.name} did not end in {timeout_s} s:\n{self.tail()}"
            time.sleep(0.01)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self.signal(signal.SIGKILL)
        self.wait()

    def words(self) -> str:
        """Return all that it has written."""
        return self.log.read_text(errors="replace")

    def tail(self, size: int = 2500) -> str:
        """Return the end of what it has written, for the text of a failure."""
        return f"--- {self.name} ({self.poll()}) ---\n{self.words()[-size:]}"


class Nursery:
    """The process that starts the others. One per test process is enough: see `shared`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one libc call, prepared beforehand
        )  # fmt: skip

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        name: str,
        stdin: Path | None = None,
        has_errors_apart: bool = False,
    ) -> Process:
        """Run `module` in a new process, in `folder`, with nothing but `arguments`, `environment` and `stdin`."""
        log = folder / f"{name}.log"
        errors = folder / f"{name}.err" if has_errors_apart else log
        command = {
            "do": "start", "module": module, "arguments": list(arguments), "environment": dict(environment),
            "folder": str(folder), "stdin": str(stdin or os.devnull), "stdout": str(log), "stderr": str(errors),
        }  # fmt: skip
        return Process(self, name, self.ask(command)["pid"], log=log, errors=errors)

    def ask(self, command: Mapping[str, Any]) -> Any:
        """Give a command and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(command)}\n")
        line = self._process.stdout.readline()
        assert line, "the nursery has died; its words stand above"
        return json.loads(line)

    def close(self) -> None:
        """End it, and with it all that it has started."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(20)


@cache
def shared() -> Nursery:
    """Return the nursery of this process, which is started when somebody first asks and ends with it."""
    one = Nursery()
    atexit.register(one.close)
    return one


def _work(command: Mapping[str, Any]) -> int:
    os.dup2(os.open(command["stdin"], os.O_RDONLY), 0)
    for name, target in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), target)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = [command["module"], *command["arguments"]]
    module = import_module(command["module"])
    if not hasattr(module, "main"):  # a package, as `python -m` runs it
        runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
        return 0
    code: int | None = module.main()
    return code or 0


def _serve() -> None:
    from workers import children  # here: only the nursery itself must import what it forks

    for name in MODULES:
        import_module(name)
    import_module("binance.client")
    children.freeze()
    running: dict[int, int | None] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            pid = children.fork(partial(_work, command))
            running[pid] = None
            answer: dict[str, int | None] = {"pid": pid}
        else:
            answer = {"code": _code_of(running, command["pid"])}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in running:
        if _code_of(running, pid) is None:
            os.kill(pid, signal.SIGKILL)


def _code_of(running: dict[int, int | None], pid: int) -> int | None:
    if running[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        running[pid] = os.waitstatus_to_exitcode(status) if ended else None
    return running[pid]


if __name__ == "__main__":
    _serve()
