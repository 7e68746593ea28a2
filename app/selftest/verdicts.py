"""The gates that are verdicts: what an answer of the exchange means, and whether Redis is safe to trade on.

The answers go through the gateway as an order's answers do; only the wire is replaced by one that answers from a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from app.clock import Clock
from app.exchange.channel import ExchangeChannel
from app.exchange.config import GatewayConfig
from app.exchange.gateway import ExchangeGateway
from app.exchange.models import PinnedOrder
from app.exchange.transport import RawAnswer, TransportError
from app.job_safety.failure_row import TransportFault
from app.job_safety.outcome import Accepted, FailureClass, NotSent, Refused, Unknown, Venue
from app.job_safety.redis_facts import read_facts
from app.job_safety.redis_safety import SafetyLevel, UnsafeRedisError, judge, refuse_if_unsafe
from app.selftest.stage import PRICE, Stage
from app.wiring import redis_limits, redis_names

RIGHT: Final = "read right"
REFUSED: Final = "refused: "
_DUPLICATE: Final = b'{"code": -2010, "msg": "Duplicate order sent."}'
_UNKNOWN_503: Final = b'{"msg": "Unknown error, please check your request or try again later."}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Critical:
    """An answer whose misreading costs a second order, or an order that is lost. `fault`: there was no answer."""

    means: str
    venue: Venue = Venue.USDM
    status: int = 400
    body: bytes = b""
    fault: TransportFault | None = None


def _code(code: int, message: str = "") -> bytes:
    return f'{{"code": {code}, "msg": "{message}"}}'.encode()


_UNKNOWN: Final = f"Unknown {FailureClass.OUTCOME_UNKNOWN}"
CRITICAL: Final[tuple[Critical, ...]] = (
    Critical(fault=TransportFault.OTHER, means=_UNKNOWN),
    Critical(fault=TransportFault.CONNECTION_REFUSED, means=f"NotSent {FailureClass.NOT_EXECUTED_RETRYABLE}"),
    Critical(status=503, body=_UNKNOWN_503, means=_UNKNOWN),
    Critical(status=503, body=b"<html>503 Service Unavailable.</html>", means=_UNKNOWN),
    Critical(status=408, body=_code(-1007), means=_UNKNOWN),
    Critical(body=_code(-1006), means=_UNKNOWN),
    Critical(body=_code(-9999), means=_UNKNOWN),
    Critical(status=200, body=b"{}", means=_UNKNOWN),
    Critical(body=_code(-4116, "ClientOrderId is duplicated."), means=f"Unknown {FailureClass.DUPLICATE_ID}"),
    Critical(venue=Venue.SPOT, body=_DUPLICATE, means=f"Unknown {FailureClass.DUPLICATE_ID}"),
    Critical(body=_code(-2019), means=f"Refused {FailureClass.REJECTED_BUSINESS}"),
    Critical(body=_code(-1021), means=f"Refused {FailureClass.CLOCK_SKEW}"),
    Critical(status=429, body=_code(-1003), means=f"Refused {FailureClass.RATE_LIMITED}"),
    Critical(status=418, body=_code(-1003), means=f"Refused {FailureClass.BANNED}"),
)


class _Wire(ExchangeChannel):
    """Answers from the table. It never connects."""

    critical = CRITICAL[0]

    def call(self, venue: Venue, name: str, parameters: Mapping[str, str], *, deadline_s: float) -> RawAnswer:
        """Return the answer, or raise the fault."""
        del venue, name, parameters, deadline_s
        one = self.critical
        if one.fault is not None:
            raise TransportError(one.fault, "self test")
        return RawAnswer(http_status=one.status, headers={}, body=one.body, sent_monotonic=0.0, received_monotonic=0.0)


class _Told(ExchangeGateway):
    """A gateway on that wire."""

    def __init__(self, clock: Clock) -> None:
        config = GatewayConfig(
            futures_url="http://127.0.0.1:1/fapi", spot_url="http://127.0.0.1:1/api", api_key=str, api_secret=str
        )
        super().__init__(config, clock)
        self._wire = _Wire(config, clock)
        self._channel = self._wire

    def means(self, one: Critical) -> str:
        """Return what the gateway makes of it."""
        self._wire.critical = one
        outcome = self.place_order(
            PinnedOrder(
                venue=one.venue, symbol="BTCUSDT", side="BUY", order_type="LIMIT", quantity=PRICE, price=PRICE,
                time_in_force="IOC", client_order_id="selftest", timestamp_ms=1, recv_window_ms=1,
            )
        )  # fmt: skip
        match outcome:
            case Unknown(failure=failure) | Refused(failure=failure):
                return f"{type(outcome).__name__} {failure.failure_class}"
            case NotSent(failure=failure):
                return f"NotSent {failure.failure_class if failure else ''}"
            case Accepted():
                return "Accepted"


def classifier(stage: Stage) -> str:
    """Have the gateway read every critical answer; return that all were read right, or the first that was not."""
    gateway = _Told(stage.installation.clock)
    for one in CRITICAL:
        found = gateway.means(one)
        if found != one.means:
            shown = one.fault or f"HTTP {one.status} {one.body.decode()}"
            return f"{one.venue} {shown}: read as {found}, is {one.means}"
    return f"{RIGHT}: {len(CRITICAL)} answers"


def redis_unsafe(stage: Stage) -> str:
    """Ask this Redis, pretend that it evicts, and have mode live refuse it because of that."""
    settings = stage.installation.settings
    facts = read_facts(stage.redis, redis_names(settings), stage.installation.clock, draw=0)
    evicting = replace(facts, info={**facts.info, "maxmemory_policy": "allkeys-lru"})
    report = judge(evicting, redis_limits(settings))
    if "eviction" not in {one.check for one in report.at_level(SafetyLevel.FAIL)}:
        return "a Redis that evicts is taken for safe"
    try:
        refuse_if_unsafe(report, is_live=True)
    except UnsafeRedisError as error:
        return f"{REFUSED}{error}"
    return "mode live would start on a Redis that evicts"
