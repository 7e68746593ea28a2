"""Circuit breakers: when the exchange fails, stop sending orders that open risk, and try with a few probes later.

One circuit per job type and venue, shared by all workers through Redis and moved only by Lua on the server's clock:
closed → open → half-open, and from there closed again or open for longer. Cancels and orders that only reduce have
circuits of their own, which are watched and alerted on and never block. What a person sets ends by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final, cast

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.effect import EffectKind, GateMode
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Accepted, Certainty, Failure, NotSent, Outcome, Refused, Unknown, Venue

_WORDS: Final = {EffectKind.OPEN: "order", EffectKind.REDUCE: "reduce", EffectKind.CANCEL: "cancel"}
JOB_TYPES: Final = tuple(f"{word}_{venue.value}" for word in _WORDS.values() for venue in Venue)
"""Every circuit. `order_…` is what opens risk, and the only kind that a breaker blocks."""

DEFAULT_OVERRIDE_MS: Final = 15 * 60_000
MAX_OVERRIDE_MS: Final = 24 * 3_600_000
CHANGES_KEPT: Final = 10_000
"""So many changes of circuits wait for the journal at most (some MB); of more the oldest are dropped, and counted."""


class BreakerState(StrEnum):
    """What a circuit lets through. The values are stored: never rename."""

    CLOSED = "closed"
    """Everything, as it should be."""
    OPEN = "open"
    """Nothing, until its time is over."""
    HALF_OPEN = "half_open"
    """A few probes at a time: enough successes close it, one failure opens it again, for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a circuit opens and how it closes again. A failure weighs 1, an outcome that is not known `unknown_weight`.

    Attributes:
        mode: off, observe or enforce.
        window_ms: How far back calls count.
        window_calls: The most calls that count.
        min_calls: Fewer calls than this have no rate.
        rate_percent: The part of failures, by weight, from which the circuit opens.
        consecutive: The weight of failures in a row from which it opens.
        unknown_weight: See above: a request that may have been executed is the dearest kind of failure.
        open_ms: How long it stays open the first time; each failed probe doubles it.
        open_max_ms: And no longer than this.
        probes: How many probes are on their way at once, and how many must succeed.
        lease_ms: How long the permit of a probe lives without being renewed: a dead prober blocks no longer.
        changes_kept: How many changes wait for the journal at most.
        config_hash: Written down with every change.
    """

    mode: GateMode = GateMode.ENFORCE
    window_ms: int = 60_000
    window_calls: int = 100
    min_calls: int = 10
    rate_percent: int = 50
    consecutive: int = 9
    unknown_weight: int = 3
    open_ms: int = 5_000
    open_max_ms: int = 60_000
    probes: int = 2
    lease_ms: int = 1_800
    changes_kept: int = CHANGES_KEPT
    config_hash: str = ""

    def words(self, job_type: str) -> str:
        """Return what Lua is told (lib_circuit.lua); empty when the breaker is off."""
        if self.mode is GateMode.OFF:
            return ""
        mode = self.mode.value if blocks(job_type) else "exempt"
        numbers = (
            self.window_ms, self.window_calls, self.min_calls, self.rate_percent, self.consecutive, self.open_ms,
            self.open_max_ms, self.probes, self.lease_ms, self.changes_kept,
        )  # fmt: skip
        return " ".join([job_type, mode, *map(str, numbers), self.config_hash]).strip()

    def weight_of(self, failure: Failure) -> int | None:
        """Return what `failure` counts; None if it says nothing about the exchange."""
        if not failure.counts_for_breaker:
            return None
        return self.unknown_weight if failure.certainty is Certainty.UNKNOWN else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What an admitted call got from its circuit: it counts for this generation only, if it counts."""

    job_type: str
    generation: int
    is_probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A person's word on a circuit, and until when it holds (server ms)."""

    state: BreakerState
    by: str
    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus:
    """A circuit at one moment of the server's clock. Times are server ms; 0 means never.

    `calls`, `failures` and `weight` are of the present window; `would_block` is what the next call would meet if the
    breaker is enforced. `why` tells of the last change.
    """

    job_type: str
    state: BreakerState
    generation: int
    failures: int
    calls: int
    weight: int
    consecutive_failures: int
    opened_at_ms: int
    open_until_ms: int
    probes_out: int
    probes_succeeded: int
    override: Override | None
    would_block: bool
    now_ms: int
    why: str


class Breakers:
    """All circuits of one account and mode."""

    def __init__(self, redis: Redis, names: GuardNames, policy: BreakerPolicy) -> None:
        self.policy = policy
        self._redis = redis
        # Of a handful of circuits, and asked for with every order.
        self._keys = cache(names.circuit)
        self._words = cache(policy.words)
        self._read = redis.register_script(scripts.source("read_circuit"))
        self._move = redis.register_script(scripts.source("move_circuit"))
        self._late = redis.register_script(scripts.source("report_late"))

    @property
    def is_on(self) -> bool:
        """Whether calls are counted at all."""
        return self.policy.mode is not GateMode.OFF

    def keys(self, job_type: str) -> Sequence[str]:
        """Return where a circuit lives: state, window, permits, and the stream of all changes."""
        return self._keys(job_type)

    def words(self, job_type: str) -> str:
        """Return what Lua is told of a circuit (lib_circuit.lua); empty when the breaker is off."""
        return self._words(job_type)

    def read(self, job_type: str) -> BreakerStatus:
        """Return one circuit as the next call would find it.

        Raises:
            ValueError: there is no such circuit.
            StoreUnavailableError: Redis did not answer.
        """
        if not self.is_on:
            return self._status(checked(job_type), ["closed", *[0] * 9, "", "", "", 0, 0, ""])
        try:
            return self._status(job_type, self._read(keys=self.keys(checked(job_type)), args=[self.words(job_type)]))
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def read_all(self) -> list[BreakerStatus]:
        """Return every circuit, those that nobody has called yet too.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        return [self.read(job_type) for job_type in JOB_TYPES]

    def override(
        self, job_type: str, state: BreakerState, *, by: str, reason: str, ttl_ms: int = DEFAULT_OVERRIDE_MS
    ) -> tuple[BreakerState, BreakerState]:
        """Set a circuit by a person's word for `ttl_ms`; return the states before and after.

        It replaces an earlier override. `closed` keeps the circuit closed whatever fails, `open` keeps it open, and
        each ends at its time by the server's clock, whoever is alive then. `half_open` lets the next probe decide.

        Raises:
            ValueError: no such circuit, no reason, nobody's name, a time out of bounds, or `open` on a circuit that
                never blocks.
            StoreUnavailableError: Redis did not answer; whether it happened is not known, and saying it again is safe.
        """
        if not 0 < ttl_ms <= MAX_OVERRIDE_MS:
            raise ValueError(f"ttl: must be between 1 ms and {MAX_OVERRIDE_MS // 3_600_000} h")
        if state is BreakerState.OPEN and not blocks(checked(job_type)):
            raise ValueError(
                f"job: {job_type} never blocks, so that risk can be taken away at any time; the kill switch stops it"
            )
        return self._moved(job_type, state.value, by=by, reason=reason, ttl_ms=ttl_ms)

    def reset(self, job_type: str, *, by: str, reason: str) -> tuple[BreakerState, BreakerState]:
        """Close a circuit as if it were new, and end any override; otherwise as `override`."""
        return self._moved(job_type, "reset", by=by, reason=reason, ttl_ms=0)

    def tick(self) -> None:
        """Let every circuit pass what is over by now, so that a change is told when it is due, not at the next call.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        if not self.is_on:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for job_type in JOB_TYPES:
                    words: list[str | int] = [self.words(job_type), "tick", "timer", "tick", 0]
                    self._move(keys=self.keys(job_type), args=words, client=pipe)
                pipe.execute()
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def report_late(self, job_type: str, *, member: str, age_ms: int) -> bool:
        """Count an outcome left unknown that its process may not have lived to tell; return whether it counts.

        `member` names the call as in `Told`, so that it counts once. A change of the circuit since, or the end of its
        window, has taken it back.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        if not self.is_on:
            return False
        words = self.words(job_type)
        arguments: list[str | int] = [words, member, self.policy.unknown_weight, max(age_ms, 0)]
        try:
            return int(self._late(keys=self.keys(checked(job_type)), args=arguments)) == 1
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    def _moved(
        self, job_type: str, what: str, *, by: str, reason: str, ttl_ms: int
    ) -> tuple[BreakerState, BreakerState]:
        if not by.strip() or not reason.strip():
            raise ValueError("reason, by: say why and who; the audit trail keeps it")
        if not self.is_on:
            raise ValueError("breaker.mode: is off, so there is no circuit to set; use observe or enforce")
        arguments: list[str | int] = [self.words(job_type), what, by.strip(), reason.strip(), ttl_ms]
        try:
            told = self._move(keys=self.keys(checked(job_type)), args=arguments)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        before, after = (BreakerState(_text(one)) for one in cast("Sequence[bytes]", told))
        return before, after

    def _status(self, job_type: str, told: Sequence[bytes | str | int]) -> BreakerStatus:
        if len(told) != 16:
            raise InvariantViolatedError(f"read_circuit.lua answered {told!r}")
        state = BreakerState(_text(told[0]))
        numbers = [int(one) for one in told[1:10]]
        generation, failures, calls, weight, consecutive, opened_at, until, out, succeeded = numbers
        override = None
        if _text(told[10]):
            override = Override(
                state=BreakerState(_text(told[10])),
                by=_text(told[11]),
                reason=_text(told[12]),
                until_ms=int(told[13]),
            )
        is_full = state is BreakerState.HALF_OPEN and out + succeeded >= self.policy.probes
        return BreakerStatus(
            job_type=job_type,
            state=state,
            generation=generation,
            failures=failures,
            calls=calls,
            weight=weight,
            consecutive_failures=consecutive,
            opened_at_ms=opened_at,
            open_until_ms=until,
            probes_out=out,
            probes_succeeded=succeeded,
            override=override,
            would_block=blocks(job_type) and (state is BreakerState.OPEN or is_full),
            now_ms=int(told[14]),
            why=_text(told[15]),
        )


def job_type_of(kind: EffectKind, venue: str) -> str | None:
    """Return the circuit of an effect; None for work that sends nothing."""
    word = _WORDS.get(kind)
    return None if word is None else f"{word}_{venue}"


def blocks(job_type: str) -> bool:
    """Return whether a breaker may stop this kind of job: only what opens risk."""
    return job_type.startswith(f"{_WORDS[EffectKind.OPEN]}_")


def checked(job_type: str) -> str:
    """Return `job_type`.

    Raises:
        ValueError: there is no such circuit.
    """
    if job_type not in JOB_TYPES:
        raise ValueError(f"job: {job_type[:40]!r} is not a circuit; use one of {', '.join(JOB_TYPES)}")
    return job_type


def weight_of(outcome: Outcome, policy: BreakerPolicy) -> int | None:
    """Return what an outcome tells about the exchange: 0 for a success, the weight of a failure, None for nothing."""
    match outcome:
        case Accepted():
            return 0
        case NotSent(failure=failure):
            return None if failure is None else policy.weight_of(failure)
        case Refused(failure=failure) | Unknown(failure=failure):
            return policy.weight_of(failure)


def _text(told: bytes | str | int) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


__all__ = [
    "DEFAULT_OVERRIDE_MS",
    "JOB_TYPES",
    "MAX_OVERRIDE_MS",
    "BreakerPolicy",
    "BreakerState",
    "BreakerStatus",
    "Breakers",
    "Override",
    "Ticket",
    "blocks",
    "checked",
    "job_type_of",
    "weight_of",
]
