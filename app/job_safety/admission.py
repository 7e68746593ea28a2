"""The one round trip before an attempt: every gate and the guard are read, and the guard taken, in one script."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from redis import Redis
from redis.exceptions import RedisError

from app.job_safety import scripts
from app.job_safety.circuit_breaker import Ticket, job_type_of
from app.job_safety.effect import EffectKind
from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.job_safety.outcome import Venue
from app.job_safety.side_effect_guard import Gates, GuardNames, Token

MOST_FRESH_S: Final = 2.0
"""The longest that an answer which came ahead may be believed, however long a lease lives."""

_TERMS_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Go on. `token` proves the lease; `ticket` says under which generation of its circuit the call counts.

    `would_block` is what a gate that merely observes would have blocked it for, or empty.
    """

    token: Token
    ticket: Ticket | None = None
    would_block: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The guard says that it is done. Believe it only once the journal confirms it."""

    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Somebody works on it: `by` is their token, and the lease lives `for_ms` more unless renewed."""

    by: str
    for_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A gate is closed: `why` (`gate:detail`), and for how long if it says so. Costs no attempt."""

    why: str
    for_ms: int | None

    @property
    def gate(self) -> str:
        """Which gate: kill_switch, pause, breaker or rate."""
        return self.why.partition(":")[0]


AdmissionAnswer: TypeAlias = Admitted | Done | Held | Blocked


class Asking(NamedTuple):
    """What asks for the admission of a job in the script that begins it, as `lib_ask.lua` takes it.

    `at_s` is when it was made (monotonic seconds), and `kill_epoch` the kill switch's epoch that was known then.
    """

    at_s: float
    kill_epoch: int
    token: Token
    keys: Sequence[str]
    arguments: Sequence[str | int]


class Ahead(NamedTuple):
    """An answer that came with the beginning of a job. `kind`, `venue` and `key` are what the queue said it is."""

    at_s: float
    kill_epoch: int
    kind: EffectKind
    venue: str
    key: str
    token: Token
    answer: AdmissionAnswer


class Admission:
    """Asks for one process. `owner` is unique per process start."""

    def __init__(
        self, redis: Redis, names: GuardNames, *, owner: str, lease_ttl_ms: int, gates: Gates | None = None
    ) -> None:
        self.owner = owner
        self._names = names
        self._lease_ttl_ms = lease_ttl_ms
        self.fresh_s = min(lease_ttl_ms / 2000, MOST_FRESH_S)
        """For how long an answer that came ahead is believed: half of its lease, so that this is renewed in time.

        No later step reads a pause or a circuit again, and a long lease must not make them count late.
        """
        self._gates = gates
        self._admit = redis.register_script(scripts.source("admit"))
        self._numbers = itertools.count(1)
        self._gates_of = lru_cache(_TERMS_REMEMBERED)(self._terms)

    def ask(
        self,
        effect_type: str,
        key: str,
        *,
        kind: EffectKind,
        venue: str | None = None,
        distrust_done: bool = False,
        weight: int = 0,
    ) -> AdmissionAnswer:
        """Ask to work on an effect.

        Args:
            effect_type: The type of intent, or `followup`.
            key: Its key.
            kind: Which gates can stop it.
            venue: Whose pauses, circuit and limits count; None for work that sends nothing.
            distrust_done: Take the guard over even if it says done, because the journal says otherwise.
            weight: Request weight of the questions that work of kind BOOK is about to ask; an order's is known.

        Raises:
            StoreUnavailableError: Redis did not answer; whether the lease is ours is unknown, so nothing is sent.
        """
        token = self._next_token()
        gates = self._gates_of(kind, venue, weight)
        script_keys = [self._names.guard(effect_type, key), *gates.keys]
        arguments = [token, self._lease_ttl_ms, kind.value, "1" if distrust_done else "0", *gates.arguments]
        try:
            answer = self._admit(keys=script_keys, args=arguments)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error
        return self._read(answer, token, job_type_of(kind, venue) if venue else None)

    def ahead(
        self, effect_type: str, wanted: Sequence[tuple[EffectKind, str]], *, at_s: float, kill_epoch: int
    ) -> Asking:
        """Return what asks for effects of `effect_type`, of any of these kinds and venues, whichever comes next."""
        token = self._next_token()
        script_keys: list[str] = []
        arguments: list[str | int] = [token, self._lease_ttl_ms, self._names.guard(effect_type, ""), len(wanted)]
        for kind, venue in wanted:
            gates = self._gates_of(kind, venue, 0)
            script_keys += gates.keys
            arguments += [asks_for(kind, venue), len(gates.keys), *gates.arguments]
        return Asking(at_s=at_s, kill_epoch=kill_epoch, token=token, keys=script_keys, arguments=arguments)

    def told(self, asking: Asking, asks: bytes, answer: object) -> Ahead:
        """Return what the script that began a job has answered to `asking`."""
        kind, venue, key = asks.decode(errors="replace").split(" ", 2)
        effect = EffectKind(kind)
        read = self._read(answer, asking.token, job_type_of(effect, venue))
        return Ahead(
            at_s=asking.at_s, kill_epoch=asking.kill_epoch, kind=effect, venue=venue, key=key, token=asking.token,
            answer=read,
        )  # fmt: skip

    def _next_token(self) -> Token:
        return Token(f"{self.owner}#{next(self._numbers)}")

    def _terms(self, kind: EffectKind, venue: str | None, weight: int) -> "_GateTerms":
        pauses = self._pauses(kind, venue)
        script_keys = [self._names.kill_switch, *pauses]
        if self._gates is None or venue is None:
            return _GateTerms(keys=script_keys, arguments=[len(pauses), "", ""])
        job_type = job_type_of(kind, venue)
        breakers, rate, where = self._gates.breakers, self._gates.rate, Venue(venue)
        script_keys += [*self._names.circuit(job_type or "none"), *rate.keys(venue)]
        policy = breakers.words(job_type) if job_type else ""
        request = rate.order_words(kind, where) if job_type else rate.words(where, kind, weight=weight)
        return _GateTerms(keys=script_keys, arguments=[len(pauses), policy, request])

    def _read(self, answer: object, token: Token, job_type: str | None) -> AdmissionAnswer:
        match answer:
            case [b"admitted", int(generation), int(is_probe), bytes(would_block)]:
                ticket = None
                if job_type is not None and self._gates is not None and self._gates.breakers.is_on:
                    ticket = Ticket(job_type=job_type, generation=generation, is_probe=is_probe == 1)
                return Admitted(token=token, ticket=ticket, would_block=would_block.decode())
            case [b"done", bytes(hint)]:
                return Done(hint=hint.decode())
            case [b"held", bytes(by), int(left)]:
                return Held(by=by.decode(), for_ms=max(left, 0))
            case [b"blocked", bytes(why), int(left)]:
                return Blocked(why=why.decode(), for_ms=left if left >= 0 else None)
            case _:
                raise InvariantViolatedError(f"admit.lua answered {answer!r}")

    def _pauses(self, kind: EffectKind, venue: str | None) -> list[str]:
        """A limit on the account's orders stops neither cancels nor questions; what counts per address stops all."""
        if venue is None:
            return []
        whole_address, orders = self._names.pauses(venue)
        return [whole_address, orders] if kind in {EffectKind.OPEN, EffectKind.REDUCE} else [whole_address]


@dataclass(frozen=True, slots=True, kw_only=True)
class _GateTerms:
    keys: Sequence[str]
    arguments: Sequence[str | int]


def asks_for(kind: EffectKind, venue: str) -> str:
    """Return what a job says of its effect, so that it can be asked for with its beginning (`lib_ask.lua`)."""
    return f"{kind} {venue}"


__all__ = [
    "Admission",
    "AdmissionAnswer",
    "Admitted",
    "Ahead",
    "Asking",
    "Blocked",
    "Done",
    "EffectKind",
    "Held",
    "asks_for",
]
