"""Where a self test plays: the code, stores and settings of the workers, with gates in Redis that nobody else reads.

The process is composed as a worker is, with other names for guards, pauses, circuits, limits and the kill key. What is
closed here closes nothing for anybody, and a self test that dies leaves nothing to restore: its names are taken away by
the next one, and its order, which no queue was given, is closed by validity.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from app.composition import compose, guard_names
from app.execution.context import ExecutionContext
from app.execution.order import run_order
from app.intents import OrderIntent, canonical, content_hash
from app.job_safety.circuit_breaker import JOB_TYPES
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.keys import client_order_id
from app.job_safety.names import GuardNames
from app.job_safety.outcome import Venue
from app.job_safety.rate_limit import Limit
from app.job_safety.state import SENDABLE, IntentState
from app.journal import intents
from app.journal.intents import NewIntent
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.selftest.seal import PassedEveryGateError, Seal, SealedGateway, nothing
from app.settings import Settings
from app.wiring import Installation, make_gateway

OWNER: Final = "selftest"
SUFFIX: Final = ":selftest"
PASSED: Final = "passed every gate"
UNREADABLE: Final = "not sent: "
PRICE: Final = Decimal("0.01")
AMPLE: Final = Limit(kind="orders", window_ms=60_000, most=1_000_000)
"""So wide that only the gate that is being tried can be closed."""

LASTS_MS: Final = 30_000
"""For how long an order of a self test is valid beyond `recvWindow`: for one step, also on a busy machine."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """The sealed process. `real` has the names of the workers, `shadow` those of the self test alone."""

    installation: Installation
    real: ExecutionContext
    shadow: ExecutionContext
    names: GuardNames
    symbol: str
    keys: list[str]
    composed: Sequence[Recorder]
    """What the two were composed with: what the gateway tells goes there."""

    @property
    def redis(self) -> Redis:
        """The server of the workers."""
        return self.installation.redis

    def order(self, *, valid_for_ms: int | None = None) -> str:
        """Journal an order that no queue is given; return its key. It is closed by validity if nobody else does."""
        context = self.shadow
        key = f"selftest-{uuid4().hex[:16]}"
        intent = OrderIntent(
            key=key, symbol=self.symbol, side="BUY", order_type="LIMIT", quantity=Decimal("0.001"), price=PRICE,
            time_in_force="IOC", strategy=OWNER,
        )  # fmt: skip
        content, now_ms = canonical(intent), context.clock.now_ms()
        lasts_ms = context.horizons.recv_window_ms + LASTS_MS if valid_for_ms is None else valid_for_ms
        row = NewIntent(
            key=key, type="order", queue="orders", content=content, content_hash=content_hash(content),
            opens_risk=True, created_at_ms=now_ms, run_at_ms=now_ms + lasts_ms, venue=Venue.USDM.value,
            symbol=self.symbol, client_order_id=client_order_id(account=context.account, mode=context.mode, key=key),
            valid_until_ms=now_ms + lasts_ms,
        )  # fmt: skip
        with context.journal.write() as connection:
            intents.insert(connection, [row])
        self.keys.append(key)
        return key

    def run(
        self,
        key: str,
        *,
        context: ExecutionContext | None = None,
        after_admission: Callable[[], object] | None = None,
    ) -> str:
        """Send the order on its way, as a worker does; return where it was stopped, or that it was not."""
        used = context or self.shadow
        seal = Seal(plan=used.faults.plan, after_admission=after_admission or nothing)
        try:
            return run_order(replace(used, faults=seal), key)
        except PassedEveryGateError:
            return PASSED
        except StoreUnavailableError as error:
            return f"{UNREADABLE}{error}"

    def change(self, key: str, **columns: object) -> None:
        """Change columns of an order of ours while it is under way, as another process would."""
        with self.shadow.journal.write() as connection:
            intents.touch(
                connection, intents.load(connection, key, lock=True), now_ms=self.shadow.clock.now_ms(), **columns
            )

    def close_order(self, key: str) -> None:
        """Close an order of ours that was stopped."""
        now_ms = self.shadow.clock.now_ms()
        with self.shadow.journal.write() as connection:
            row = intents.load(connection, key, lock=True)
            if row.state in SENDABLE:
                intents.move(
                    connection, row, IntentState.EXPIRED, now_ms=now_ms, reason="self test", booked_at_ms=now_ms
                )

    def clear(self) -> None:
        """Open every gate of the stage, and close what is left of its orders.

        Raises:
            StoreUnavailableError: a store does not answer.
        """
        while self.keys:
            self.close_order(self.keys[-1])
            self._forget(self.names.guard("order", self.keys.pop()))
        self.forget_gates()
        self.shadow.rate.publish(Venue.USDM, [AMPLE])

    def forget_gates(self) -> None:
        """Take away what the stage has in Redis.

        Raises:
            StoreUnavailableError: Redis does not answer; the next self test takes it away.
        """
        self._forget(*_gate_keys(self.names))

    def _forget(self, *keys: str) -> None:
        try:
            self.redis.delete(*keys)
        except RedisError as error:
            raise StoreUnavailableError(f"redis: {error}") from error


def build(installation: Installation, record: Recorder) -> Stage:
    """Return the stage of an installation.

    Raises:
        NoExchangeError: no exchange is named.
    """
    settings = private(installation.settings)
    gateway = make_gateway(installation.settings, installation.clock, kind=SealedGateway)
    shadow = compose(replace(installation, settings=settings), OWNER, gateway=gateway)
    # Composed last: what the gateway is told of limits and refusals belongs to the real gates.
    real = compose(installation, OWNER, gateway=gateway)
    silent = Recorder(
        make_logger(stream=io.StringIO()),
        None,
        installation.clock,
        mode=installation.mode,
        account=installation.account,
    )
    return Stage(
        installation=installation,
        real=replace(real, faults=Seal(plan=real.faults.plan), record=record),
        # What is stopped here is no trouble: it is not counted, and nothing is latched because of it.
        shadow=replace(shadow, kill=None, record=silent),
        names=guard_names(settings),
        symbol=settings.universe.usdm[0] if settings.universe.usdm else "",
        keys=[],
        composed=(real.record, shadow.record),
    )


def private(settings: Settings) -> Settings:
    """Return `settings` with names in Redis that only self tests use. All limits and modes stay."""
    guard = settings.guard
    names = ("namespace", "breaker_namespace", "rate_namespace", "kill_switch_key")
    changed = {name: f"{getattr(guard, name)}{SUFFIX}" for name in names}
    return settings.model_copy(update={"guard": guard.model_copy(update=changed)})


def _gate_keys(names: GuardNames) -> list[str]:
    keys = [names.kill_switch]
    for venue in Venue:
        keys += [*names.pauses(venue.value), *names.rates(venue.value)]
    for job_type in JOB_TYPES:
        keys += names.circuit(job_type)
    return list(dict.fromkeys(keys))
