"""A child that dies with its parent (Linux), so that nothing goes on trading unattended."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; a parent that is dead already ends it here."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
