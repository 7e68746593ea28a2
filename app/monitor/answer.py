"""What a request is answered: one shape for every page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status code, content and further headers."""

    code: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(code: int, told: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer for programs, which people can read too."""
    body = (json.dumps(told, indent=2, default=str) + "\n").encode()
    return Answer(code=code, kind=JSON, body=body, headers=headers or {})


def as_text(code: int, text: str) -> Answer:
    """Return an answer for people."""
    return Answer(code=code, kind=TEXT, body=text.encode())
