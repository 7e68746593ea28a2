"""Renews the lease of the work in hand beside it: an attempt may take longer than a lease lives.

One thread per process, started with the first lease, after any fork. It stops renewing when the work ends; when the
whole process is stopped or dead the lease runs out, which is what a lease is for.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

from app.job_safety.errors import StoreUnavailableError
from app.job_safety.side_effect_guard import SideEffectGuard, Token, Told


class LeaseKeeper:
    """Keeps the leases of one process."""

    def __init__(self, guard: SideEffectGuard, *, renew_s: float) -> None:
        self._guard = guard
        self._renew_s = renew_s
        self._held: dict[Token, tuple[str, str, Told | None]] = {}
        self._changed = threading.Condition()
        self._pid = 0

    @contextlib.contextmanager
    def keep(self, effect_type: str, key: str, token: Token, told: Told | None = None) -> Iterator[None]:
        """Renew the lease, and a probe's permit, until the block ends.

        Does not give it back: whoever took it knows what it became. `told` names the probe's ticket, if it is one.
        """
        self._start()
        with self._changed:
            self._held[token] = (effect_type, key, told)
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._held.pop(token, None)

    def _start(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._changed = threading.Condition()
            threading.Thread(target=self._run, name="lease-keeper", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._held:
                    self._changed.wait()
            threading.Event().wait(self._renew_s)
            with self._changed:
                held = dict(self._held)
            for token, (effect_type, key, told) in held.items():
                # Without Redis the lease runs out. The journal still decides, so nothing is lost by it.
                with contextlib.suppress(StoreUnavailableError):
                    self._guard.renew(effect_type, key, token, told)
