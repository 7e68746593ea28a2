"""What a campaign has shown, as tables for people and for docs/."""

from collections.abc import Mapping, Sequence

from tests.chaos.faults import matrix
from tests.chaos.recovery import percentile
from tests.chaos.runner import Result

COLUMNS = ("intents", "kills", "duplicates", "lost", "stranded", "ledger difference", "other", "p50", "p99")
TIMES = (
    ("recovery_ms", "a worker that dies while all others live", "a reconcile or dispatch of its order begins"),
    ("storm_recovery_ms", "a worker that dies in a storm of kills, the supervisor's included", "the same"),
    (
        "lease_recovery_ms",
        "everything on one machine",
        "another machine's reconcile of its order begins (by the lease)",
    ),
)


def render(results: Mapping[str, Result]) -> str:
    """Return the tables of a campaign, one row per run and one for all together."""
    whole = Result()
    for one in results.values():
        whole.add(one)
    rows = [["run", *COLUMNS], *([name, *_cells(one)] for name, one in results.items()), ["all", *_cells(whole)]]
    strikes = [["fault", "struck"], *([str(name), str(count)] for name, count in sorted(whole.struck.items()))]
    words = f"{len(whole.cases)} of {len(matrix())} cases of the matrix (fault point x answer) were run."
    times = [["from the death of", "until", "deaths", "p50", "p99", "longest"]]
    for name, who, until in TIMES:
        values = getattr(whole, name)
        cells = [_ms(percentile(values, percent)) for percent in (50, 99, 100)]
        times.append([who, until, str(len(values)), *cells])
    problems = [f"DID NOT STRIKE: {text}" for text in whole.not_struck] + str(whole.findings).splitlines()
    return "\n\n".join([_markdown(rows), words, _markdown(times), _markdown(strikes), *problems])


def _cells(one: Result) -> list[str]:
    found = one.findings
    numbers = (
        one.intents, one.kills, len(found.duplicates), len(found.lost), len(found.stranded), len(found.ledger),
        len(found.blind_resends) + len(found.other),
    )  # fmt: skip
    return [*map(str, numbers), *(_ms(percentile(one.recovery_ms, percent)) for percent in (50, 99))]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])
