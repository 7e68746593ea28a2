"""Whether an intent may be worked on beside others in the same process.

What kills a process counts against everything that the process was at, and what was there too often is quarantined as
poison. So an intent that a process has died at is worked on alone: its next death is nobody else's.
"""

from app.execution.context import ExecutionContext
from app.job_safety.errors import RetryableError
from app.journal.rows import IntentRow


class NotAloneError(RetryableError):
    """The process is at other work. The job goes back to its queue until it can be alone."""


def be_alone_with(context: ExecutionContext, row: IntentRow) -> None:
    """Have the process be at nothing but `row` from now on, if others have died of it.

    Raises:
        NotAloneError: it is at something else; nothing was done with `row`.
    """
    if row.rescues and not context.stay_alone():
        raise NotAloneError(f"{row.key}: a worker has died of it, and this process is at other work too")
