"""The other end of `feeder.py`: enqueues through a process of the peer's own."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

LAST_LINES: Final = 3


class Feed:
    """A feeder process, and the numbers of the orders that it has been given so far."""

    def __init__(self, python: Path, module: str, environment: Mapping[str, str], folder: Path, log: IO[bytes]) -> None:
        self.sent = 0
        self._module = module
        self._log = Path(log.name)
        self._process = subprocess.Popen(
            [str(python), "-m", "bench.throughput.feeder", module], env=dict(environment), cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

    def fill(self, count: int) -> float:
        """Enqueue so many in batches; return the seconds that it took."""
        return float(self._ask("fill", count))

    def singly(self, count: int) -> float:
        """Enqueue so many one by one; return the seconds that it took."""
        return float(self._ask("singly", count))

    def paced(self, count: int, per_s: int) -> Sequence[tuple[str, float, float]]:
        """Enqueue so many a second; return the id at the exchange, and when each call began and ended."""
        return [(str(name), float(began), float(ended)) for name, began, ended in self._ask("paced", count, per_s)]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, action: str, count: int, per_s: int = 0) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"do": action, "first": self.sent, "count": count, "per_s": per_s}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            words = " | ".join(self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise RuntimeError(f"the feeder of {self._module} has ended; the last words of its log: {words}")
        self.sent += count
        return json.loads(line)
