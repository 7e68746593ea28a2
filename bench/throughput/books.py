"""The book queues as the supervisor runs them: a worker and a thread each, in one process."""

import sys

from workers.identity import new_owner
from workers.shared import run_shared

if __name__ == "__main__":
    sys.exit(run_shared(["positions", "ledger", "pnl"], owner=new_owner("books")))
