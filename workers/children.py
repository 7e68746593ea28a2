"""Child processes by fork from a warm parent: quick to start again, and dead as soon as their parent is."""

import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

from app.embedded.parent import die_with

MAX_DESCRIPTORS: Final = 4096
INHERITED: Final = 3
"""The descriptor under which a child finds the one that it was given."""


def fork(work: Callable[[], int], *, give: int | None = None) -> int:
    """Run `work` in a child and return its process id. The child ends with the code that `work` returns.

    The child has none of the parent's descriptors but 0, 1 and 2, and `give`, which it finds as `INHERITED`.

    The parent must hold no connection and run no thread: the child would share the one and miss the other. The child is
    killed when the parent dies (Linux), and hears no Ctrl-C of the terminal: the parent decides when it stops.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with(parent)
        os.setpgid(0, 0)
        if give is not None:
            os.dup2(give, INHERITED)
        os.closerange(INHERITED + (give is not None), MAX_DESCRIPTORS)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        code = work()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was is shown, and the parent restarts
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    """Write out what is left. Without room on the disk it is lost: a child that went on would run its parent's code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def freeze() -> None:
    """Keep what is loaded by now out of the garbage collector, so that children go on sharing its memory."""
    gc.collect()
    gc.freeze()
