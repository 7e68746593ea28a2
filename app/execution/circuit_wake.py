"""Orders that snooze until an open circuit's time is over go on once it lets them pass earlier.

A person's word, or probes, may close a circuit long before the time that an order was told. Whoever watches circuits
brings such orders forward, a bounded number at each look; the sweeper delivers them, and each meets every gate again,
so that the exchange's limits hold however many there are.
"""

from typing import Final

from app.clock import Clock
from app.job_safety.circuit_breaker import JOB_TYPES, Breakers, BreakerState, BreakerStatus, blocks
from app.job_safety.effect import GateMode
from app.journal import snoozed
from app.journal.engine import Journal
from app.observability.recorder import Recorder

BATCH: Final = 200
"""How many orders of one circuit are brought forward at one look."""
WATCH_S: Final = 30.0
"""For how long after a change it is looked for them: one that was blocked just before may journal its snooze later."""


class CircuitWake:
    """Brings orders forward, for one process. Several do no harm: what is due already is passed over."""

    def __init__(self, journal: Journal, breakers: Breakers, clock: Clock, record: Recorder) -> None:
        self._journal = journal
        self._breakers = breakers
        self._clock = clock
        self._record = record
        self._seen: dict[str, tuple[int, float]] = {}

    def step(self) -> int:
        """Look at every circuit that blocks; return how many orders were brought forward.

        Raises:
            StoreUnavailableError: a store does not answer.
        """
        return sum(self._look(job_type) for job_type in JOB_TYPES if blocks(job_type))

    def _look(self, job_type: str) -> int:
        status = self._breakers.read(job_type)
        now_s = self._clock.monotonic()
        generation, until_s = self._seen.get(job_type, (-1, 0.0))
        if generation != status.generation:
            until_s = now_s + WATCH_S
            self._seen[job_type] = (status.generation, until_s)
        limit = self._limit(status)
        if limit == 0 or now_s > until_s:
            return 0
        with self._journal.write() as connection:
            count = snoozed.bring_forward(
                connection, why=f"breaker:{job_type}", now_ms=self._clock.now_ms(), limit=limit
            )
        if count:
            self._seen[job_type] = (status.generation, now_s + WATCH_S)  # there may be more than one batch
            self._record.event("brought_forward", count=False, job_type=job_type, orders=count)
        return count

    def _limit(self, status: BreakerStatus) -> int:
        """Half-open, only as many as may probe now: the others would be blocked again, for a while."""
        if self._breakers.policy.mode is not GateMode.ENFORCE or status.state is BreakerState.CLOSED:
            return BATCH
        if status.state is BreakerState.OPEN:
            return 0
        return max(self._breakers.policy.probes - status.probes_out - status.probes_succeeded, 0)
