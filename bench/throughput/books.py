"""The book queues as the supervisor runs them: a worker and a thread each, in one process."""

import sys

from workers.identity import new_owner
from workers.shared import a_queue_each, run_shared

if __name__ == "__main__":
    sys.exit(run_shared(a_queue_each(new_owner("books"), ["positions", "ledger", "pnl"])))
