"""Processes as threads of which exactly one runs: each stops at every point where the world could change under it.

A point is a request to Redis, the journal or the exchange, or a named fault point. The driver decides who goes on, and
what happens there. Nothing depends on real time or on the machine, so a schedule always runs the same way.
"""

import threading
from collections.abc import Callable


class ProcessDiedError(BaseException):
    """kill -9: nothing in the process may catch it, and nothing it does on its way out has an effect."""


class Process:
    """One process start: a name, a piece of work, and where it stands."""

    def __init__(self, name: str, work: Callable[[], str] | None = None) -> None:
        self.name = name
        self.where = "start"
        self.is_dead = False
        self.is_frozen = False
        self.is_finished = False
        self.result = ""
        self.error: BaseException | None = None
        self.reply_inline: Callable[[str], str | None] | None = None
        """Answers the points of a process that never stops at them."""
        self._work = work
        self._reply: str | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def is_inline(self) -> bool:
        """Whether it runs in the driver's own thread and never stops."""
        return self._work is None

    @property
    def can_run(self) -> bool:
        """Whether the driver may let it go on."""
        return not (self.is_finished or self.is_dead or self.is_frozen or self.is_inline)

    def check_alive(self) -> None:
        """Stop a dead process from having any effect."""
        if self.is_dead:
            raise ProcessDiedError(self.name)

    def point(self, where: str) -> str | None:
        """Stop here until the driver lets the process go on; return what is to happen here, if anything special."""
        self.check_alive()
        self.where = where
        if self.is_inline:
            return self.reply_inline(where) if self.reply_inline is not None else None
        self._stopped.release()
        self._go.acquire()
        self.check_alive()
        reply, self._reply = self._reply, None
        return reply

    def go(self, reply: str | None = None) -> None:
        """Let the process run to its next point or its end."""
        self._reply = reply
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._stopped.acquire()

    def kill(self) -> None:
        """kill -9."""
        self.is_dead, self.is_frozen = True, False
        if self._thread is not None and not self.is_finished:
            self._go.release()
            self._stopped.acquire()
        self.is_finished = True

    def _run(self) -> None:
        assert self._work is not None
        try:
            self.result = self._work()
        except ProcessDiedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the driver judges it in its own thread
            self.error = error
        finally:
            self.is_finished = True
            self.where = "end"
            self._stopped.release()
