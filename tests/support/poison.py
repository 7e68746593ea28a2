"""A supervisor whose processes die at every order that is called poison, as of a bug that what it holds brings out.

Orders that are called slow take their time before they are sent, and so are at work when others die.
"""

import os
import signal
import time

from app.execution import order
from app.execution.context import ExecutionContext
from app.journal.meta import Meta
from app.journal.rows import IntentRow
from workers import supervisor

SLOW_S = 0.7


def main() -> int:
    attempt = order._attempt

    def deadly(context: ExecutionContext, row: IntentRow, stamp: Meta) -> tuple[str, bool]:
        if row.key.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if row.key.startswith("slow"):
            time.sleep(SLOW_S)
        return attempt(context, row, stamp)

    order._attempt = deadly
    return supervisor.main()
