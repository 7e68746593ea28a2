"""`fillonce circuit advise`: what other thresholds would have done with the calls that were made."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.output import as_json, as_table, emit, say

if TYPE_CHECKING:
    from app.job_safety.circuit_advice import Advice, Setting
    from app.job_safety.circuit_breaker import BreakerPolicy
    from app.journal.attempt_history import PastAttempt

DEFAULT_SINCE: Final = "7d"
_COLUMNS: Final = (
    "job_type", "setting", "rate_percent", "consecutive", "opened", "open_s", "failure_weight_spared",
    "good_calls_held_back",
)  # fmt: skip
_RATES: Final = (
    "job_type",
    "calls",
    "failures",
    "windows",
    "median_percent",
    "p95_percent",
    "max_percent",
    "longest_row",
)


def advise(
    *,
    since: Annotated[
        str, typer.Option("--since", help="Calls of the last 30m, 24h, 7d, or since 2026-11-21T08:00:00Z.")
    ] = DEFAULT_SINCE,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per circuit and line.")] = False,
) -> None:
    """Report how often circuits would have opened at the present thresholds and at others. Changes nothing.

    Replays the attempts in the journal: how failures were spread over windows, how often each setting would have
    opened, what weight of failures it would have held back, and how many good calls with them. What a breaker did hold
    back was never called and is not in the history.

    Example:
      fillonce circuit advise --since 24h
    """
    from app.cli.opening import books  # lazy: --help needs no database
    from app.cli.retries import since_ms
    from app.composition import breaker_policy
    from app.journal.attempt_history import Wanted, pages

    wanted = Wanted(since_ms=since_ms(since))
    with books() as opened:
        policy = breaker_policy(opened.settings)
        found: dict[str, Advice] = {}
        for page in pages(opened.journal, wanted):
            take(found, page, policy)
    advices = [found[name] for name in sorted(found)]
    for one in advices:
        one.rates.end()
    if json_:
        emit(as_json(fields(one)) for one in advices)
        return
    emit(as_table([name.replace("_", " ") for name in _RATES], [list(rates(one).values()) for one in advices]))
    emit([""])
    rows = [row for one in advices for row in tried(one)]
    emit(as_table([name.replace("_", " ") for name in _COLUMNS], [[row[name] for name in _COLUMNS] for row in rows]))
    for one in advices:
        say(f"{one.job_type}: {words(one)}")


def take(found: "dict[str, Advice]", page: "list[PastAttempt]", policy: "BreakerPolicy") -> None:
    """Replay a page of attempts, each for its circuit; those that say nothing about the exchange are passed over."""
    from app.job_safety.circuit_advice import advice_of

    for attempt in page:
        weight = weight_of(attempt, policy)
        name = circuit_of(attempt)
        if weight is not None and name is not None:
            if name not in found:
                found[name] = advice_of(name, policy)
            found[name].take(attempt.dispatched_at_ms, weight)


def weight_of(attempt: "PastAttempt", policy: "BreakerPolicy") -> int | None:
    """Return what the attempt told its circuit: 0 for a success, the weight of a failure, None for nothing.

    A worker that died before it had an answer says nothing about the exchange, whatever became of the order.
    """
    from app.job_safety.failure_classifier import counts_for_breaker

    if attempt.unknown_at_ms is not None:
        return policy.unknown_weight if counts_for_breaker(attempt.rule or "") else None
    if attempt.settled_by not in {"dispatch", "own_answer"}:
        return None
    if attempt.result == "ACCEPTED":
        return 0
    return 1 if attempt.rule is not None and counts_for_breaker(attempt.rule) else None


def circuit_of(attempt: "PastAttempt") -> str | None:
    """Return the circuit of an attempt; None: its work has none."""
    from app.job_safety.circuit_breaker import job_type_of
    from app.job_safety.effect import EffectKind

    if attempt.venue is None:
        return None
    kind = EffectKind.OPEN if attempt.opens_risk else EffectKind.REDUCE
    return job_type_of(EffectKind.CANCEL if attempt.type == "cancel" else kind, attempt.venue)


def rates(advice: "Advice") -> dict[str, object]:
    """Return how failures were spread."""
    return {
        "job_type": advice.job_type,
        "calls": advice.calls,
        "failures": advice.failures,
        "windows": advice.rates.windows,
        "median_percent": advice.rates.quantile(50),
        "p95_percent": advice.rates.quantile(95),
        "max_percent": advice.rates.quantile(100),
        "longest_row": advice.longest_row,
    }


def tried(advice: "Advice") -> Iterator[dict[str, Any]]:
    """Yield what each setting would have done."""
    for setting, replay in advice.tried:
        yield {
            "job_type": advice.job_type,
            "setting": setting.name,
            "rate_percent": setting.policy.rate_percent,
            "consecutive": setting.policy.consecutive,
            "opened": replay.opened,
            "open_s": replay.open_ms // 1000,
            "failure_weight_spared": replay.spared,
            "good_calls_held_back": replay.held_back,
        }


def fields(advice: "Advice") -> dict[str, Any]:
    """Return what `--json` prints."""
    best = advice.best()
    return {
        **rates(advice),
        "settings": [{name: value for name, value in row.items() if name != "job_type"} for row in tried(advice)],
        "recommended": None if best is None else best.name,
        "why": words(advice),
    }


def words(advice: "Advice") -> str:
    """Return the recommendation, and what it rests on."""
    from app.job_safety.circuit_advice import MIN_CALLS
    from app.job_safety.circuit_breaker import blocks

    best = advice.best()
    if best is None:
        return f"too little to go by: {advice.calls} calls, at least {MIN_CALLS} are needed"
    if not blocks(advice.job_type):
        return "this circuit never blocks: its thresholds only say when it is told of"
    if advice.failures == 0:
        return f"keep the thresholds: none of {advice.calls} calls failed"
    if best.name == "present":
        return "keep the thresholds: none that was tried would have done clearly better"
    return f"consider {_named(best)}: {_compared(advice, best)}. Look at the nights behind the numbers first"


def _named(setting: "Setting") -> str:
    return f"breaker.rate_percent {setting.policy.rate_percent}, breaker.consecutive {setting.policy.consecutive}"


def _compared(advice: "Advice", best: "Setting") -> str:
    by_name = {setting.name: replay for setting, replay in advice.tried}
    now, then = by_name["present"], by_name[best.name]
    return (
        f"failures of weight {then.spared} would have been held back and not {now.spared}, "
        f"good calls {then.held_back} and not {now.held_back}"
    )
