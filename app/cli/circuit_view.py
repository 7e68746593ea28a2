"""Circuits and their changes as people and programs read them."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from app.cli.output import iso

_COUNTS: Final = ("calls", "failures", "failure_weight", "consecutive_failures")
NOT_COUNTED: Final = "not counted until it is closed"

if TYPE_CHECKING:
    from app.job_safety.circuit_breaker import BreakerStatus
    from app.journal.audit import AuditRow


def fields(status: "BreakerStatus") -> dict[str, object]:
    """Return a circuit as `--json` prints it."""
    override = status.override
    return {
        "job_type": status.job_type,
        "state": status.state.value,
        "would_block": status.would_block,
        "generation": status.generation,
        "calls": status.calls,
        "failures": status.failures,
        "failure_weight": status.weight,
        "consecutive_failures": status.consecutive_failures,
        "opened_at": iso(status.opened_at_ms or None),
        "open_until": iso(status.open_until_ms) if status.state.value == "open" else None,
        "probes_out": status.probes_out,
        "probes_succeeded": status.probes_succeeded,
        "override": None
        if override is None
        else {
            "state": override.state.value,
            "by": override.by,
            "reason": override.reason,
            "until": iso(override.until_ms),
        },
        "why": status.why or None,
    }


def opened_because(status: "BreakerStatus", changes: "Sequence[AuditRow]") -> str | None:
    """Return why a circuit is not closed: what was counted when it opened, or a person's word.

    What has moved it since (a probe that failed, its time) does not hide that. None: it is closed, or nobody knows.

    Args:
        status: The circuit.
        changes: Its changes, oldest first.
    """
    if status.state.value == "closed":
        return None
    for row in reversed(changes):
        detail = json.loads(row.detail)
        if detail["from"] == "closed" and detail["to"] != "closed":
            return str(detail["why"])
    return status.why or None


def cell(told: Mapping[str, object], name: str, *, not_counted: str | None = NOT_COUNTED) -> object:
    """Return one of its fields as a table shows it. Only a closed circuit counts: another one's zeros mean nothing."""
    value = told[name]
    if name in _COUNTS and told["state"] != "closed":
        return not_counted
    if name == "override" and isinstance(value, Mapping):
        return f"{value['state']} by {value['by']} until {value['until']}: {value['reason']}"
    return value


def change_fields(row: "AuditRow") -> dict[str, object]:
    """Return one change of a circuit as `--json` prints it."""
    detail = json.loads(row.detail)
    return {
        "at": iso(row.at_ms),
        "job_type": row.subject.partition(":")[2],
        "action": row.action,
        "from": detail["from"],
        "to": detail["to"],
        "by": row.actor,
        "why": detail["why"],
        "until": iso(detail["until_ms"]),
        "config_hash": detail["config_hash"],
    }
