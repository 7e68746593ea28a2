"""Named points at which a test may strike: kill, stop or raise. In production every one is a no-op.

A plan is text such as `before_send=kill@/tmp/marker`: at the point `before_send`, once (the marker file is created with
O_EXCL, so that one process of many strikes, and the test can see that it struck), do `kill`.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class FaultPoint(StrEnum):
    """Places in dispatch and booking between which a process may die. A new member is a new test case by itself."""

    BEFORE_ADMISSION = "before_admission"
    AFTER_ADMISSION = "after_admission"
    IN_DISPATCH_TRANSACTION = "in_dispatch_transaction"
    AFTER_DISPATCH_COMMIT = "after_dispatch_commit"
    BEFORE_SEND = "before_send"
    AFTER_SEND = "after_send"
    IN_SETTLE_TRANSACTION = "in_settle_transaction"
    AFTER_SETTLE_COMMIT = "after_settle_commit"
    AFTER_GUARD_DONE = "after_guard_done"
    AFTER_FOLLOWUPS_DELIVERED = "after_followups_delivered"
    BEFORE_FILLS_TRANSACTION = "before_fills_transaction"
    IN_FILLS_TRANSACTION = "in_fills_transaction"
    AFTER_FILLS_COMMIT = "after_fills_commit"
    IN_LEDGER_TRANSACTION = "in_ledger_transaction"
    AFTER_LEDGER_COMMIT = "after_ledger_commit"
    IN_PNL_TRANSACTION = "in_pnl_transaction"
    AFTER_PNL_COMMIT = "after_pnl_commit"


class FaultAction(StrEnum):
    """What strikes."""

    KILL = "kill"
    STOP = "stop"
    RAISE = "raise"


class InjectedFaultError(RuntimeError):
    """Raised at a fault point by a plan that says `raise`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFault:
    """One strike: what happens, and the file that marks that it has."""

    action: FaultAction
    marker: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The plan of one process; empty in production."""

    plan: Mapping[FaultPoint, PlannedFault] = field(default_factory=dict)

    def may_strike(self, point: FaultPoint) -> bool:
        """Return whether `hit` may do anything there."""
        return point in self.plan

    def hit(self, point: FaultPoint) -> None:
        """Strike if the plan names `point` and nobody has struck there yet; otherwise do nothing.

        Raises:
            InjectedFaultError: the plan says `raise`.
        """
        if not self.plan:
            return
        planned = self.plan.get(point)
        if planned is None or not _claim(planned.marker):
            return
        if planned.action is FaultAction.RAISE:
            raise InjectedFaultError(f"fault injected at {point}")
        # Of this thread: a signal to the process is taken up by any of its threads, and this one runs on meanwhile.
        signal.raise_signal(signal.SIGKILL if planned.action is FaultAction.KILL else signal.SIGSTOP)


def parse_plan(text: str) -> Faults:
    """Return the plan written as `point=action@marker`, several separated by commas.

    Raises:
        ValueError: a point or an action has no such name, or a marker is missing.
    """
    plan: dict[FaultPoint, PlannedFault] = {}
    for item in filter(None, text.split(",")):
        point, _, rest = item.partition("=")
        action, _, marker = rest.partition("@")
        if not marker:
            raise ValueError(f"{item!r}: write point=action@marker-file")
        plan[FaultPoint(point)] = PlannedFault(action=FaultAction(action), marker=Path(marker))
    return Faults(plan=plan)


def _claim(marker: Path) -> bool:
    """Leave the process id in the marker, unless there is one already."""
    try:
        descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, str(os.getpid()).encode())
    finally:
        os.close(descriptor)
    return True
