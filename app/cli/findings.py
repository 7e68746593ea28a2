"""What `doctor` finds."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Safe, and it could be better."""

    FAIL = "fail"
    """Not safe to trade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `remedy` is empty where all is well."""

    check: str
    level: Level
    detail: str
    remedy: str = ""
    is_unreachable: bool = False

    def fields(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {"check": self.check, "level": self.level.value, "detail": self.detail, "remedy": self.remedy or None}


def ok(check: str, detail: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check=check, level=Level.OK, detail=detail)


def warn(check: str, detail: str, remedy: str) -> Finding:
    """Return a finding that could be better."""
    return Finding(check=check, level=Level.WARN, detail=detail, remedy=remedy)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """Return a finding that makes trading unsafe."""
    return Finding(check=check, level=Level.FAIL, detail=detail, remedy=remedy)


def unreachable(check: str, detail: str, remedy: str) -> Finding:
    """Return the finding that something does not answer."""
    return Finding(check=check, level=Level.FAIL, detail=detail, remedy=remedy, is_unreachable=True)
