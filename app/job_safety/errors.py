"""Every error that crosses a boundary of this package, as one tree.

JobSafetyError
├── RetryableError              nothing was left behind: run again
│   ├── StoreUnavailableError   the journal or Redis cannot be read or written now
│   │   └── ForeignQueueError   this Redis serves another journal of the same account
│   └── LeaseLostError          another worker took over before dispatch; nothing was sent
├── TerminalError               never again
│   ├── IntentNotFoundError     the journal does not know this key
│   ├── IllegalTransitionError  a state machine was asked for a move it does not have
│   └── WrongInstallationError  this journal belongs to another mode or account
├── OutcomeUnknownError         a request may have left: reconcile, never resend
└── InvariantViolatedError      our bug: stop, quarantine, page
"""


class JobSafetyError(Exception):
    """The root of everything this package raises."""


class RetryableError(JobSafetyError):
    """Nothing was left behind; the same work may simply run again."""


class StoreUnavailableError(RetryableError):
    """The journal or Redis cannot be reached now. What opens risk must not be sent (fail closed)."""


class ForeignQueueError(StoreUnavailableError):
    """The queues of this account in this Redis are another journal's."""


class LeaseLostError(RetryableError):
    """Another worker took this intent over before anything was sent."""


class TerminalError(JobSafetyError):
    """Running again cannot help."""


class IntentNotFoundError(TerminalError):
    """The journal holds no intent with this key."""


class IllegalTransitionError(TerminalError):
    """A state machine was asked for a move that it does not have."""


class WrongInstallationError(TerminalError):
    """The journal is stamped with another mode or account."""


class OutcomeUnknownError(JobSafetyError):
    """A request may have reached the exchange. Reconcile owns the intent now."""


class InvariantViolatedError(JobSafetyError):
    """A promise of the protocol did not hold: a bug of ours, never a condition to retry."""
