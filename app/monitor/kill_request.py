"""What may be asked of the kill switch over HTTP. Read strictly: a guess could release what should be stopped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.job_safety.kill_switch import KillState

FIELDS: Final = ("state", "reason", "by")
MAX_BODY_BYTES: Final = 4096
MAX_CHARACTERS: Final = {"reason": 500, "by": 100}
_STATES: Final = {
    **{state.value.lower(): state for state in KillState},
    "on": KillState.HALT,
    "off": KillState.RUN,
}
_EXAMPLE: Final = '{"state": "HALT", "reason": "orders without end", "by": "anna"}'


class BadRequestError(ValueError):
    """A body that asks for nothing we know. Nothing was changed.

    Attributes:
        code: The HTTP status.
        field: What is wrong.
        remedy: What to send instead.
    """

    def __init__(self, code: int, field: str, problem: str, remedy: str) -> None:
        super().__init__(code, field, problem, remedy)
        self.code, self.field, self.problem, self.remedy = code, field, problem, remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRequest:
    """A state to hold the switch at (RUN releases it), why, and who says so."""

    state: KillState
    reason: str
    by: str


def parse(body: bytes | None) -> KillRequest:
    """Return what `body` asks for. None: it was too long, or did not arrive.

    Raises:
        BadRequestError: it is no JSON object of exactly these fields, or a value is none that we know.
    """
    if body is None:
        remedy = f"send Content-Length and at most {MAX_BODY_BYTES} bytes"
        raise BadRequestError(413, "body", "is too large, or did not arrive as long as announced", remedy)
    told = _read(body)
    for name in told:
        if name not in FIELDS:
            raise BadRequestError(422, name[:40], "is not a field", f"send {', '.join(FIELDS)} and nothing else")
    return KillRequest(state=_state(told), reason=_line(told, "reason"), by=_line(told, "by"))


def _read(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except BadRequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadRequestError(400, "body", "is not JSON in UTF-8", f"send {_EXAMPLE}") from error
    if not isinstance(told, dict):
        raise BadRequestError(400, "body", "is not a JSON object", f"send {_EXAMPLE}")
    return told


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequestError(400, name[:40], "stands twice", "send each field once")
        found[name] = value
    return found


def _state(told: dict[str, Any]) -> KillState:
    value = told.get("state")
    state = _STATES.get(value.strip().lower().replace("-", "_")) if isinstance(value, str) else None
    if state is None:
        raise BadRequestError(
            422, "state", "is missing or no state of the switch", f"use one of {', '.join(KillState)} (or on, off)"
        )
    return state


def _line(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    # Printable: a stored NUL, line break or half of a surrogate pair would break the trail that it is kept in.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        remedy = "say why and who in one line of text each: the audit trail keeps it"
        raise BadRequestError(422, name, "is missing, empty or not one line of text", remedy)
    if len(value) > MAX_CHARACTERS[name]:
        raise BadRequestError(422, name, "is too long", f"at most {MAX_CHARACTERS[name]} characters")
    return value.strip()
