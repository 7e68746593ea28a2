"""Renews the lease of the work in hand beside it: an attempt may take longer than a lease lives.

One thread per process, started with the first lease, after any fork. It stops renewing when the work ends; when the
whole process is stopped or dead the lease runs out, which is what a lease is for.
"""

import contextlib
import os
import threading
from contextlib import AbstractContextManager
from typing import TypeAlias

from app.job_safety.errors import StoreUnavailableError
from app.job_safety.side_effect_guard import SideEffectGuard, Token, Told

_Lease: TypeAlias = tuple[str, str, Told | None]


class LeaseKeeper:
    """Keeps the leases of one process."""

    def __init__(self, guard: SideEffectGuard, *, renew_s: float) -> None:
        self._guard = guard
        self._renew_s = renew_s
        # No lock: adding, taking away and copying are single steps.
        self._held: dict[Token, _Lease] = {}
        self._busy = threading.Event()
        self._pid = 0

    def keep(self, effect_type: str, key: str, token: Token, told: Told | None = None) -> AbstractContextManager[None]:
        """Renew the lease, and a probe's permit, until the block ends.

        Does not give it back: whoever took it knows what it became. `told` names the probe's ticket, if it is one.
        """
        return _Kept(self, token, (effect_type, key, told))

    def hold(self, token: Token, lease: _Lease) -> None:
        """Renew `lease` from now on."""
        if self._pid != os.getpid():
            self._start()
        self._held[token] = lease
        if not self._busy.is_set():
            self._busy.set()

    def drop(self, token: Token) -> None:
        """Renew the lease no longer."""
        self._held.pop(token, None)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._busy = threading.Event()
        threading.Thread(target=self._run, name="lease-keeper", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            threading.Event().wait(self._renew_s)
            held = dict(self._held)
            if not held:
                self._busy.clear()
                if self._held:  # taken between the two lines before, by somebody who saw it set
                    self._busy.set()
            for token, (effect_type, key, told) in held.items():
                # Without Redis the lease runs out. The journal still decides, so nothing is lost by it.
                with contextlib.suppress(StoreUnavailableError):
                    self._guard.renew(effect_type, key, token, told)


class _Kept(AbstractContextManager[None]):
    """A class and not a generator: every order enters one."""

    __slots__ = ("_keeper", "_lease", "_token")

    def __init__(self, keeper: LeaseKeeper, token: Token, lease: _Lease) -> None:
        self._keeper = keeper
        self._token = token
        self._lease = lease

    def __enter__(self) -> None:
        self._keeper.hold(self._token, self._lease)

    def __exit__(self, *_raised: object) -> None:
        self._keeper.drop(self._token)
