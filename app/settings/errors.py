"""What is wrong with a configuration, in words that name the place and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class SettingsError(ValueError):
    """The settings cannot be used: nothing is started.

    Attributes:
        problems: one line each, naming file or variable, key and remedy. Never a secret's value.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return a hint for an unknown `name`: the nearest valid one, else all of them."""
    known = sorted(str(each) for each in valid)
    nearest = get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"valid: {', '.join(known)}"
