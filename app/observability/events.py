"""Which event counts what. An event that stands here and one that does not are both counted by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from app.observability import catalog as c
from app.observability.metric import Count, Effect, Fields, Mark, Observe

GATES: Final = frozenset({"kill_switch", "pause", "breaker", "rate", "validity", "exchange", "symbol"})
_REASONS: Final = {
    "breaker": "circuit_open", "pause": "cooldown", "rate": "cooldown", "kill_switch": "kill_switch",
    "validity": "validity",
}  # fmt: skip
_STATUS: Final = {"Accepted": "success", "Refused": "rejected", "Unknown": "unknown", "NotSent": "error"}

ALARM: Final = "alarm_"


def gate_of(fields: Fields) -> str:
    """Return which gate a reason names: what stands before its first colon, if that is the name of a gate."""
    gate = str(fields.get("gate") or fields.get("why") or "").partition(":")[0]
    if gate in GATES:
        return gate
    return "exchange" if gate.startswith("exchange") else "other"


def reason_of(fields: Fields) -> str:
    """Return the same in the words of retry policies."""
    return _REASONS.get(gate_of(fields), "other")


def _status_of_block(fields: Fields) -> str:
    return "kill_switch" if gate_of(fields) == "kill_switch" else "blocked"


def _is(field: str, value: object) -> Callable[[Fields], bool]:
    return lambda fields: fields.get(field) == value


def _before_colon(field: str) -> Callable[[Fields], object]:
    return lambda fields: str(fields.get(field, "")).partition(":")[0]


def _fixed(value: str) -> Callable[[Fields], object]:
    return lambda _fields: value


def _has(field: str) -> Callable[[Fields], bool]:
    return lambda fields: fields.get(field) is not None


_JOB: Final = {"job_type": "job_type"}
_BLOCKED: Final = (
    Count(metric=c.GATE_BLOCKS, labels={**_JOB, "gate": gate_of}),
    Count(metric=c.RETRY_BLOCKS, labels={**_JOB, "reason": reason_of}),
)

EFFECTS: Final[Mapping[str, tuple[Effect, ...]]] = MappingProxyType(
    {
        "snoozed": (*_BLOCKED, Count(metric=c.APPLY_EXECUTED, labels={"status": _status_of_block})),
        "cancel_waits": (
            Count(
                metric=c.GATE_BLOCKS,
                labels={**_JOB, "gate": gate_of},
                when=lambda fields: gate_of(fields) != "other",
            ),
        ),
        "would_block": (Count(metric=c.WOULD_BLOCK, labels={**_JOB, "gate": gate_of}),),
        "rejected": (
            Count(metric=c.RETRY_BLOCKS, labels={**_JOB, "reason": "ended_by"}),
            Count(metric=c.ORDERS_FINISHED, labels={"state": _fixed("REJECTED")}),
            Observe(metric=c.RETRY_ATTEMPTS, value="attempt", scale=1, labels=_JOB),
        ),
        "expired": (
            Count(metric=c.RETRY_BLOCKS, labels={**_JOB, "reason": _fixed("validity")}),
            Count(metric=c.ORDERS_FINISHED, labels={"state": _fixed("EXPIRED")}),
        ),
        "order_finished": (Count(metric=c.ORDERS_FINISHED, labels={"state": "state"}),),
        "attempt_settled": (
            Count(metric=c.ATTEMPTS_TOTAL, labels={**_JOB, "outcome": "outcome"}),
            Count(
                metric=c.APPLY_EXECUTED,
                labels={"status": lambda fields: _STATUS.get(str(fields.get("outcome")), "error")},
                when=_is("type", "order"),
            ),
            Observe(metric=c.DISPATCH_SECONDS, value="took_ms", labels={**_JOB, "outcome": "outcome"}),
            Observe(
                metric=c.ORDER_EXECUTION_SECONDS,
                value="age_ms",
                labels={"venue": "venue"},
                when=lambda fields: fields.get("type") == "order" and fields.get("outcome") == "Accepted",
            ),
            Observe(metric=c.RETRY_ATTEMPTS, value="attempt", scale=1, labels=_JOB, when=_is("outcome", "Accepted")),
            Count(
                metric=c.ORDERS_PLACED,
                labels={"symbol": "symbol", "side": "side"},
                when=lambda fields: fields.get("type") == "order" and fields.get("outcome") == "Accepted",
            ),
            Count(
                metric=c.API_ERRORS,
                labels={"venue": "venue", "failure_class": "failure_class"},
                when=_has("failure_class"),
            ),
        ),
        "query_failed": (Count(metric=c.API_ERRORS, labels={"venue": "venue", "failure_class": "failure_class"}),),
        "duplicate_blocked": (
            Count(metric=c.DUPLICATE_BLOCKED, labels={**_JOB, "by": lambda fields: fields.get("stopped_by", "guard")}),
        ),
        "in_doubt": (
            Count(metric=c.IN_DOUBT_TOTAL, labels={**_JOB, "rule": "rule"}),
            Observe(metric=c.RECOVERY_SECONDS, value="after_ms", labels=_JOB, when=_is("rule", "owner_died")),
        ),
        "doubt_settled": (
            Observe(metric=c.RECONCILE_SECONDS, value="doubt_ms", labels={"result": _fixed("found")}),
            Observe(metric=c.RETRY_ATTEMPTS, value="attempt", scale=1, labels=_JOB),
        ),
        "proven_absent": (Observe(metric=c.RECONCILE_SECONDS, value="doubt_ms", labels={"result": "verdict"}),),
        "rescued": (
            Count(
                metric=c.RESCUES,
                labels={"by": lambda fields: "supervisor" if fields.get("dead") is not None else "sweeper"},
            ),
        ),
        "gate_closed": (Count(metric=c.LIMITS_HIT, labels={"venue": "venue", "status": _before_colon("why")}),),
        "kill_switch_changed": (
            Count(
                metric=c.KILL_CHANGES,
                labels={"to_state": lambda fields: fields.get("to_state") or fields.get("state")},
            ),
        ),
        "circuit_changed": (Count(metric=c.TRIPS, labels=_JOB, when=_is("to_state", "open")),),
        "signal_became_order": (Count(metric=c.SIGNALS, labels={"symbol": "symbol", "direction": "side"}),),
        "gate_proven": (Mark(metric=c.GATE_PROOF, labels={"gate": "gate"}),),
        "duty_done": (Mark(metric=c.DUTY_RUN, labels={"duty": "duty"}),),
    }
)
