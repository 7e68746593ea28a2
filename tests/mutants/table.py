"""The table that docs/explanation/mutants.md keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.mutants.mutant import Mutant

SHOWN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """What became of one mutant. `by_search` None: it was not asked."""

    mutant: Mutant
    tests: Sequence[str]
    by_search: bool | None
    seconds: float

    @property
    def is_caught(self) -> bool:
        """Whether any test turned red."""
        return bool(self.tests) or self.by_search is True


def render(results: Sequence[Caught]) -> str:
    """Return the table, as Markdown."""
    lines = [
        "| the mutant | what it breaks, and the harm | search | caught by | s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in results:
        search = {True: "found", False: "no", None: ""}[one.by_search]
        lines.append(
            f"| {one.mutant.name} | {one.mutant.breaks}: {one.mutant.harm} | {search} | {_tests(one)} "
            f"| {one.seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _tests(one: Caught) -> str:
    if not one.is_caught:
        return "**nothing: it survived**"
    if not one.tests:
        return "the search alone"
    names = list(dict.fromkeys(name.partition("[")[0].removeprefix("test_").replace("_", " ") for name in one.tests))
    rest = f"; {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + rest
