"""Validates intents, writes them into the journal, and hands their keys to the queue, in this order.

Once `submit` has answered `accepted` or `duplicate`, the intent is on disk and will reach a finished state or
quarantine: whatever happens to Redis, to this process or to the workers, the sweeper finds it in the journal.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from sqlalchemy import Connection, select, update

from app.clock import Clock, SystemClock
from app.delivery import URGENT, Delivery
from app.execution.parcels import parcel_of
from app.intents import CancelIntent, Intent, IntentError, parse_intent
from app.job_safety.errors import ForeignQueueError, StoreUnavailableError
from app.job_safety.state import IntentState
from app.journal import intents as rows
from app.journal import schema
from app.journal.engine import Journal
from app.journal.intents import NewIntent
from app.producer.submission import Status, Submission
from app.producer.terms import Terms
from app.wiring import Installation, open_installation, settings_from_environment

MAX_BATCH: Final = 500
"""Intents per journal transaction: one sync to disk for all of them, and a lock that is held for some milliseconds."""

NOT_DELIVERED: Final = "journaled; Redis is not reachable, it will be delivered when Redis is back"
CONFLICT: Final = (
    "key: was used before with other content, and nothing was changed; use a new key for a new intent, "
    "or send the very same content again"
)

_COLLISIONS: Final = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock: the transaction left nothing behind and may simply run again.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""


_Verdict: TypeAlias = tuple[Status, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Journaled:
    """A batch that the journal has: its rows, what became of each, and the keys that the queues must be told."""

    new: Sequence[NewIntent]
    verdicts: Sequence[_Verdict]
    waiting: frozenset[str]


class Producer:
    """Submits intents of one account in one mode. Many processes may submit at once, the same intents included."""

    def __init__(
        self,
        journal: Journal,
        delivery: Delivery,
        clock: Clock,
        *,
        account: str,
        mode: str,
        default_valid_for_s: int,
    ) -> None:
        self._journal = journal
        self._delivery = delivery
        self._clock = clock
        self._terms = Terms(account=account, mode=mode, default_valid_for_s=default_valid_for_s)
        self._no_delivery_before = 0.0

    @classmethod
    def of(cls, installation: Installation) -> Self:
        """Return the producer of an opened installation."""
        return cls(
            installation.journal,
            installation.delivery,
            installation.clock,
            account=installation.account,
            mode=installation.mode,
            default_valid_for_s=installation.settings.policy.valid_for_s,
        )

    def submit(self, intent: Intent | Mapping[str, Any]) -> Submission:
        """Journal one intent and hand its key to the queue.

        Raises:
            IntentError: it cannot be taken; names the field and the remedy. Nothing was written.
            StoreUnavailableError: the journal cannot be written. It may be submitted again under the same key.
        """
        checked = parse_intent(dict(intent)) if isinstance(intent, Mapping) else intent
        (submission,) = self.submit_many([checked])
        if submission.status is Status.INVALID:
            field, _, problem = (submission.error or "").partition(": ")
            raise IntentError(field, *problem.split("; ", 1))
        return submission

    def submit_many(self, intents: Sequence[Intent]) -> list[Submission]:
        """Journal intents and hand their keys to the queues, in batches of `MAX_BATCH`; answer in the given order.

        A batch is taken whole or not at all. A cancel needs its order in the journal or in the same batch.

        Raises:
            StoreUnavailableError: the journal cannot be written. Earlier batches of this call are taken; submitting all
                of it again is safe, and tells what was taken before by `duplicate`.
        """
        batches = [intents[start : start + MAX_BATCH] for start in range(0, len(intents), MAX_BATCH)]
        if len(batches) <= 1:
            return [told for batch in batches for told in self._hand_over(self._journaled(batch))]
        told: list[Future[list[Submission]]] = []
        # Redis takes a batch while the next one is written. Never more than one: what Redis cannot take now waits in
        # the journal, and not in a queue of ours.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="delivery") as aside:
            for batch in batches:
                journaled = self._journaled(batch)
                wait(told[-1:])
                told.append(aside.submit(self._hand_over, journaled))
        return [one for batch in told for one in batch.result()]

    def _journaled(self, intents: Sequence[Intent]) -> _Journaled:
        """Write a batch; return what became of it."""
        now_ms = self._clock.now_ms()
        new = [self._terms.row(intent, now_ms) for intent in intents]
        try:
            return self._take(intents, new)
        except StoreUnavailableError as error:
            if _sqlstate(error) not in _COLLISIONS:
                raise
            return self._take(intents, new)

    def _hand_over(self, batch: _Journaled) -> list[Submission]:
        """Hand what is to be moved to the queues, and answer for the batch."""
        delivered = [row for row in batch.new if row.key in batch.waiting]
        problem = self._deliver(delivered)
        if problem is not None:
            self._hurry(sorted(row.key for row in delivered if row.queue == URGENT))
        return [
            Submission(
                key=row.key,
                status=status,
                delivered=problem is None or row.key not in batch.waiting,
                error=error or (problem if row.key in batch.waiting else None),
            )
            for row, (status, error) in zip(batch.new, batch.verdicts, strict=True)
        ]

    def _take(self, intents: Sequence[Intent], new: Sequence[NewIntent]) -> _Journaled:
        """Write a batch in one transaction."""
        now_ms = self._clock.now_ms()
        verdicts: dict[int, _Verdict] = {}
        with self._journal.write() as connection:
            types = _types_of(connection, [intent.order_key for intent in intents if isinstance(intent, CancelIntent)])
            for intent in intents:
                types.setdefault(intent.key, intent.type)
            for index, intent in enumerate(intents):
                if isinstance(intent, CancelIntent) and (problem := _cancel_problem(intent, types)):
                    verdicts[index] = (Status.INVALID, problem)
            # In the order of the keys: two producers that write the same ones wait for each other, never in a circle.
            order = sorted((i for i in range(len(intents)) if i not in verdicts), key=lambda i: (intents[i].key, i))
            taken = rows.insert(connection, [new[index] for index in order])
            for index, outcome in zip(order, taken, strict=True):
                status = Status(outcome.value)
                verdicts[index] = (status, CONFLICT if status is Status.CONFLICT else None)
            accepted = {intents[i].key for i, (status, _) in verdicts.items() if status is Status.ACCEPTED}
            again = {intents[i].key for i, (status, _) in verdicts.items() if status is Status.DUPLICATE} - accepted
            waiting = accepted | _still_waiting(connection, sorted(again), now_ms=now_ms)
        told = [verdicts[index] for index in range(len(intents))]
        return _Journaled(new=new, verdicts=told, waiting=frozenset(waiting))

    def _deliver(self, new: Sequence[NewIntent]) -> str | None:
        parcels = [parcel_of(row) for row in {row.key: row for row in new}.values()]
        started = self._clock.monotonic()
        if not parcels:
            return None
        if started < self._no_delivery_before:
            return NOT_DELIVERED
        try:
            self._delivery.deliver(parcels)
        except ForeignQueueError as error:
            return f"journaled, not delivered; {error}"
        except StoreUnavailableError:
            # A Redis that refuses is tried again at once; one that hangs is let alone for as long as it has hung, so
            # that it cannot hold up the journal for more than half of the time.
            now = self._clock.monotonic()
            self._no_delivery_before = now + (now - started)
            return NOT_DELIVERED
        return None

    def _hurry(self, exits: Sequence[str]) -> None:
        """Have the sweeper run `exits` from the journal at once: it looks after what was delivered only later."""
        table = schema.intents
        waits = table.c.key.in_(exits) & (table.c.state == IntentState.RECEIVED.value)
        if exits:
            # They are taken already, and found a little later without this.
            with contextlib.suppress(StoreUnavailableError), self._journal.write() as connection:
                connection.execute(update(table).where(waits).values(run_at_ms=self._clock.now_ms()))


def submit(intent: Intent | Mapping[str, Any], *, producer: Producer | None = None) -> Submission:
    """Journal one intent and hand its key to the queue; opens the installation that the environment names.

    Opening costs some milliseconds each time. Whoever submits often makes a `Producer` and keeps it.

    Raises:
        IntentError: it cannot be taken; names the field and the remedy. Nothing was written.
        StoreUnavailableError: the journal cannot be written. It may be submitted again under the same key.
        SettingsError: the environment or the configuration cannot be used.
    """
    if producer is not None:
        return producer.submit(intent)
    checked = parse_intent(dict(intent)) if isinstance(intent, Mapping) else intent
    installation = open_installation(settings_from_environment(), SystemClock())
    try:
        return Producer.of(installation).submit(checked)
    finally:
        installation.redis.close()
        installation.journal.close()


def _cancel_problem(intent: CancelIntent, types: Mapping[str, str]) -> str | None:
    kind = types.get(intent.order_key)
    if kind == "order":
        return None
    problem = (
        "names no order that the journal knows" if kind is None else f"names an intent of type {kind}, not an order"
    )
    return str(IntentError("order_key", problem, "give the key of an order that was enqueued before its cancel"))


def _types_of(connection: Connection, wanted: Sequence[str]) -> dict[str, str]:
    table = schema.intents
    if not wanted:
        return {}
    found = connection.execute(select(table.c.key, table.c.type).where(table.c.key.in_(sorted(set(wanted)))))
    return {row.key: row.type for row in found}


def _still_waiting(connection: Connection, wanted: Sequence[str], *, now_ms: int) -> frozenset[str]:
    """Return which of these intents should be moving now: their first delivery may have been lost."""
    table = schema.intents
    if not wanted:
        return frozenset()
    query = select(table.c.key).where(
        table.c.key.in_(wanted), table.c.state == IntentState.RECEIVED.value, table.c.not_before_ms <= now_ms
    )
    return frozenset(connection.execute(query).scalars())


def _sqlstate(error: BaseException) -> str | None:
    return next((state for cause in _causes(error) if (state := getattr(cause, "sqlstate", None))), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "orig", None) or cause.__cause__
