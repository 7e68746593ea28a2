"""Whether what was promised is true after a run. Reads the exchange's own history, the journal and the books.

Counts by itself what the table shows, and adds all that the general checker finds.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from app.books.check import check_books
from app.job_safety.outcome import FailureClass
from app.job_safety.retry_policy import RetryLimits
from app.job_safety.state import ON_EXCHANGE, TERMINAL_STATES, IntentState
from app.journal import attempts
from app.journal.rows import AttemptRow, IntentRow
from tests.chaos.workload import Wish
from tests.support.checker import books_snapshot
from tests.support.system import System

RESENDABLE = {"NOT_SENT", "REFUSED", "ABSENT"}
COUNTED_BY_ITSELF = ("DUPLICATE", "UNFINISHED", "NOT BOOKED", "LOST", "BOOKS")


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is not as promised, by kind, in words. All empty: all is well."""

    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stranded: list[str] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    blind_resends: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def __str__(self) -> str:
        return "\n".join(f"{one.name}: {text}" for one in fields(self) for text in getattr(self, one.name))

    def add(self, more: "Findings") -> None:
        """Take over what another check has found."""
        for one in fields(self):
            getattr(self, one.name).extend(getattr(more, one.name))


def check(
    here: System, wishes: Mapping[str, Wish], *, expected_alarms: Collection[str] = (), may_give_up: bool = False
) -> Findings:
    """Return what is not as promised, now that everything has come to rest.

    Args:
        here: The installation, with its exchange.
        wishes: Every intent whose submission was answered with success, by key.
        expected_alarms: Counters of alarms that the faults of this run raise rightly.
        may_give_up: Whether the exchange refused orders at random, so that one may have been refused for the last time
            it may be tried.
    """
    truth = here.exchange.truth()
    with here.installation.journal.read() as connection:
        tries: dict[str, list[AttemptRow]] = {key: attempts.of_intent(connection, key) for key in wishes}
        ledger = [
            f"{one.venue} {one.what}: ours {one.ours}, theirs {one.theirs}"
            for one in check_books(connection, books_snapshot(truth))
        ]
    rows = {key: here.row(key) for key in wishes}
    given_up = {key for key in wishes if may_give_up and is_given_up_rightly(rows[key].state, tries[key])}
    general = here.checker.problems(truth, expected_alarms=expected_alarms)
    return Findings(
        duplicates=list(duplicates(truth)),
        lost=list(lost(rows, {key: wish for key, wish in wishes.items() if key not in given_up}, truth)),
        stranded=list(stranded(rows.values())),
        ledger=ledger,
        blind_resends=list(blind_resends(tries, truth)),
        other=[text for text in general if not text.startswith(COUNTED_BY_ITSELF)],
    )


def duplicates(truth: Any) -> Iterator[str]:
    """Name every client order id under which the exchange ever accepted more than one order."""
    count = Counter((order["venue"], order["client_order_id"]) for order in truth["orders"])
    for (venue, name), number in count.items():
        if number > 1:
            yield f"{venue} {name}: {number} orders"


def lost(rows: Mapping[str, IntentRow], wishes: Mapping[str, Wish], truth: Any) -> Iterator[str]:
    """Name every acknowledged intent that ended as it must not, or whose end the exchange's history denies.

    A market order for whose rest the exchange found nobody ends as EXPIRED there, and so does its intent.
    """
    known = {order["client_order_id"]: order["status"] for order in truth["orders"]}
    for key, wish in wishes.items():
        row = rows[key]
        ran_dry = row.state is IntentState.EXPIRED_BY_EXCHANGE and known.get(row.client_order_id or "") == "EXPIRED"
        if row.state in TERMINAL_STATES and row.state not in wish.ends and not ran_dry:
            yield f"{key} is {row.state} ({row.reason}) and should be {' or '.join(sorted(wish.ends))}"
        if row.type == "order" and (row.state in ON_EXCHANGE) != (row.client_order_id in known):
            yield f"{key} is {row.state}, and the exchange {'has' if row.client_order_id in known else 'never had'} it"


def is_given_up_rightly(state: IntentState, tries: Sequence[AttemptRow]) -> bool:
    """Return whether an order was refused as often as the policy allows, each time by an answer of its own.

    That the exchange never had it is not asked here: an order that it has and we call REJECTED is found in any case.
    """
    if state is not IntentState.REJECTED or any(one.outcome not in {"REFUSED", "NOT_SENT"} for one in tries):
        return False
    refused = [one for one in tries if one.outcome == "REFUSED"]
    limits = RetryLimits()
    by_clock = refused[-1:] and refused[-1].failure_class == FailureClass.CLOCK_SKEW.value
    return len(refused) >= (limits.max_clock_skew_attempts if by_clock else limits.max_attempts)


def stranded(rows: Iterable[IntentRow]) -> Iterator[str]:
    """Name every acknowledged intent that is not finished and booked; quarantined ones too."""
    for row in rows:
        if row.state not in TERMINAL_STATES or row.booked_at_ms is None:
            yield f"{row.key} is {row.state}, attempt {row.attempt}, booked at {row.booked_at_ms}: {row.reason}"


def blind_resends(tries: Mapping[str, list[AttemptRow]], truth: Any) -> Iterator[str]:
    """Name every attempt that was dispatched while an earlier one was not yet known to have failed."""
    accepted_ms = {order["client_order_id"]: order["accepted_ms"] for order in truth["orders"]}
    for key, row in tries.items():
        for before, after in pairwise(row):
            settled_ms = before.settled_at_ms
            if before.outcome not in RESENDABLE or settled_ms is None:
                yield f"{key}: attempt {after.attempt} was dispatched, attempt {before.attempt} is {before.outcome}"
            elif (
                before.outcome == "ABSENT" and accepted_ms.get(after.client_order_id, before.fence_ms) < before.fence_ms
            ):
                yield f"{key}: attempt {before.attempt} counts as absent, and was accepted before its fence"
