"""The whole system as child processes of a command: local exchange, supervisor; started and stopped in order."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

from app.clock import Clock
from app.embedded.parent import die_with
from app.embedded.redis_server import ensure_redis, stop_redis
from app.job_safety.errors import StoreUnavailableError
from app.settings import LOCAL_EXCHANGE_FILE, PAPER_KEY, PAPER_SECRET, Settings, child_environment

STOP_S: Final = 40
"""How long a child may take to stop in order; longer than the supervisor's own limit."""

START_S: Final = 60


@dataclass(slots=True, kw_only=True)
class LocalSystem:
    """Children of this process. What was running already, a private Redis say, is left running."""

    settings: Settings
    clock: Clock
    log: IO[bytes] | None = None
    exchange: subprocess.Popen[bytes] | None = None
    supervisor: subprocess.Popen[bytes] | None = None
    stops_redis: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def home(self) -> Path:
        """The folder of the embedded stores."""
        return self.settings.stores.home

    def start_stores(self) -> None:
        """Have the private Redis running, if no other is named.

        Raises:
            EmbeddedRedisError: it will not start; says the remedy.
        """
        if self.settings.stores.redis_url is None:
            self.stops_redis = ensure_redis(self.home, self.clock).started

    def start_exchange(self, options: Sequence[str] = ()) -> None:
        """Start the local exchange and leave its addresses in the home folder; `settings` name it from here on.

        Raises:
            StoreUnavailableError: it did not start.
        """
        data = self.home / "paper-exchange"
        command = [sys.executable, "-m", "app.exchange.paper", "--data", str(data), *options]
        exchange = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.log,
            start_new_session=True,
            preexec_fn=_with_us(),  # noqa: PLW1509 - this process runs no thread yet
        )
        line = exchange.stdout.readline() if exchange.stdout else b""
        if not line:
            _end(exchange)
            raise StoreUnavailableError(f"the local exchange did not start; does another one run in {self.home}?")
        self.exchange = exchange
        told = json.loads(line)
        addresses = {
            "futures_url": told["futures_url"],
            "spot_url": told["spot_url"],
            "api_key": PAPER_KEY,
            "api_secret": PAPER_SECRET,
        }
        path = self.home / LOCAL_EXCHANGE_FILE
        path.write_text(json.dumps(addresses), encoding="utf-8")
        path.chmod(0o600)
        self.settings = self.settings.with_exchange(**addresses)

    def start_supervisor(self, workers: str = "", *, extra: Mapping[str, str] | None = None) -> None:
        """Start the supervisor with these settings."""
        environment = {**child_environment(self.settings, os.environ), **(extra or {})}
        command = [sys.executable, "-m", "workers.supervisor", *(["--workers", workers] if workers else [])]
        self.supervisor = subprocess.Popen(
            command,
            env=environment,
            stderr=self.log,
            start_new_session=True,
            preexec_fn=_with_us(),  # noqa: PLW1509 - the same
        )

    def hurry(self) -> None:
        """Tell the supervisor again to stop."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop workers first, then the exchange, then Redis if this started it."""
        _end(self.supervisor)
        _end(self.exchange)
        if self.exchange is not None:
            (self.home / LOCAL_EXCHANGE_FILE).unlink(missing_ok=True)
        if self.stops_redis:
            stop_redis(self.home, self.clock)
            self.stops_redis = False


def _with_us() -> Callable[[], None]:
    parent = os.getpid()
    return lambda: die_with(parent)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
