"""How it stands, for a person and for a program: one mapping, and the same as text."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from app.clock import from_ms
from app.job_safety import retry_metrics
from app.job_safety.circuit_breaker import BreakerState, BreakerStatus
from app.job_safety.state import IntentState
from app.monitor import kill
from app.monitor.numbers import anomalies, doubt_age_s, spikes
from app.monitor.readiness import reasons
from app.monitor.readings import Reading
from app.settings import short_hash


def status(reading: Reading) -> dict[str, Any]:
    """Return the state as plain values. What could not be read is null."""
    journal, redis = reading.journal, reading.redis
    why_not = reasons(reading)
    held = kill.by_source(reading.holding, journal_is_readable=journal is not None)
    return {
        "ready": not why_not,
        "reasons": why_not,
        "mode": reading.settings.mode.value,
        "account": reading.settings.account,
        "version": version("fillonce"),
        "config_hash": short_hash(reading.settings),
        "time": from_ms(reading.now_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "kill_switch": {
            "state": reading.kill_state.value,
            "sources": {name: state.value for name, state in held.items()},
            "held_by": kill.words(reading.holding, journal_is_readable=journal is not None) or None,
            "reason": journal.stamp.kill_reason if journal else None,
            "epoch": journal.stamp.kill_epoch if journal else None,
        },
        "breakers": None if redis is None else [_circuit(one) for one in redis.breakers],
        "gates": _gates(reading),
        "queues": None
        if redis is None
        else {
            name: {"depth": one.depth, "oldest_s": _seconds(one.oldest_ms), "workers": one.workers}
            for name, one in redis.queues.items()
        },
        "in_doubt": _waiting(reading, IntentState.IN_DOUBT),
        "quarantined": _waiting(reading, IntentState.QUARANTINED),
        "open": None if journal is None else {state.value: one.count for state, one in journal.states.items()},
        "lag_s": None
        if journal is None
        else {"intents": _seconds(journal.lag.intents_ms), "followups": _seconds(journal.lag.followups_ms)},
        "retries": _retries(reading),
        "stores": _stores(reading),
        "redis_safety": _redis_safety(reading),
    }


def as_text(told: Mapping[str, Any]) -> str:
    """Return the same for a person: what is wrong first, a line each."""
    return "\n".join(_lines(told)) + "\n"


def _circuit(one: BreakerStatus) -> dict[str, Any]:
    override = one.override
    return {
        "job_type": one.job_type,
        "state": one.state.value,
        "would_block": one.would_block,
        "calls": one.calls,
        "failures": one.failures,
        "consecutive_failures": one.consecutive_failures,
        "open_for_s": _seconds(max(0, one.open_until_ms - one.now_ms)) if one.state is BreakerState.OPEN else None,
        "why": one.why,
        "override": None
        if override is None
        else {
            "state": override.state.value,
            "by": override.by,
            "reason": override.reason,
            "for_s": _seconds(max(0, override.until_ms - one.now_ms)),
        },
    }


def _gates(reading: Reading) -> dict[str, Any] | None:
    if reading.redis is None:
        return None
    return {
        f"pause_{venue}": {"why": pause.why, "for_s": _seconds(pause.for_ms)}
        for venue, pause in reading.redis.pauses.items()
    }


def _redis_safety(reading: Reading) -> dict[str, Any] | None:
    if reading.redis is None or reading.redis.safety is None:
        return None
    found = reading.redis.safety
    return {
        "level": found.level.value,
        "findings": [
            {"check": one.check, "level": one.level.value, "detail": one.detail, "remedy": one.remedy}
            for one in found.findings
        ],
    }


def _waiting(reading: Reading, state: IntentState) -> dict[str, Any] | None:
    if reading.journal is None:
        return None
    one = reading.journal.states[state]
    return {
        "count": one.count,
        "oldest_s": round(doubt_age_s(reading, state), 1) if one.count else None,
        "keys": reading.journal.named[state],
    }


def _retries(reading: Reading) -> dict[str, Any] | None:
    journal = reading.journal
    if journal is None:
        return None
    window_s = reading.settings.metrics.window_minutes * 60
    types: dict[str, Any] = {}
    for job_type, spike in spikes(reading).items():
        one, ended = journal.retries.get(job_type), journal.ended.get(job_type)
        types[job_type] = {
            "per_minute": round(retry_metrics.rate_per_minute(one.retries if one else 0, window_s), 3),
            "success_rate": ended.success_rate if ended else None,
            "avg_attempts": ended.avg_attempts if ended else None,
            "spike": spike.is_spike,
        }
    return {"window_s": window_s, "by_job_type": types, "anomalies": anomalies(reading)}


def _stores(reading: Reading) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: {"up": name not in reading.errors, "error": reading.errors.get(name)} for name in ("journal", "redis")
    }
    for venue, clock in reading.clocks.items():
        told[f"exchange_clock_{venue}"] = {"up": clock.is_known, "error": clock.error or None}
    return told


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    switch = told["kill_switch"]
    yield f"mode {told['mode']}, account {told['account']}, version {told['version']}, settings {told['config_hash']}"
    yield f"at {told['time']}"
    yield ""
    yield "ready" if told["ready"] else "NOT READY"
    for reason in told["reasons"]:
        yield f"  - {reason}"
    yield ""
    held = f": {switch['held_by']}" if switch["held_by"] else ""
    yield f"kill switch   {switch['state']}{held}"
    for name, gate in (told["gates"] or {}).items():
        until = "until a person opens it" if gate["for_s"] is None else f"for {gate['for_s']} s"
        yield f"gate          {name}: {gate['why']}, {until}"
    for one in told["breakers"] or ():
        yield from _circuit_lines(one)
    for name, store in told["stores"].items():
        yield f"{'up' if store['up'] else 'DOWN':<13} {name}{': ' + store['error'] if store['error'] else ''}"
    for one in (told["redis_safety"] or {}).get("findings", ()):
        yield f"redis {one['level']:<7} {one['check']}: {one['detail']}: {one['remedy']}"
    for name in ("in_doubt", "quarantined"):
        yield from _waiting_lines(name.replace("_", " "), told[name])
    yield _open_line(told["open"])
    yield from _queue_lines(told)
    yield from _retry_lines(told)


def _circuit_lines(one: Mapping[str, Any]) -> Iterator[str]:
    """Tell of a circuit that is not as it should be."""
    override = one["override"]
    if override is not None:
        held = f"{one['state']} by {override['by']}, for {override['for_s']} s more"
        yield f"circuit       {one['job_type']}: {held}: {override['reason']}"
    elif one["state"] != "closed":
        opens = "" if one["open_for_s"] is None else f" for {one['open_for_s']} s"
        why = f": {one['why']}" if one["why"] else ""
        yield f"circuit       {one['job_type']}: {one['state']}{opens}{why}"


def _waiting_lines(name: str, one: Mapping[str, Any] | None) -> Iterator[str]:
    if one is None:
        yield f"{name:<13} not known: the journal does not answer"
    elif not one["count"]:
        yield f"{name:<13} none"
    else:
        age = "" if one["oldest_s"] is None else f", the oldest for {one['oldest_s']} s"
        yield f"{name:<13} {one['count']}{age}: {', '.join(one['keys'])}"


def _open_line(counts: Mapping[str, int] | None) -> str:
    """Tell of what is not finished: a gate that is closed shows in what piles up before it, not in the queues."""
    if counts is None:
        return "open          not known: the journal does not answer"
    return f"open          {', '.join(f'{count} {state}' for state, count in counts.items() if count) or 'none'}"


def _queue_lines(told: Mapping[str, Any]) -> Iterator[str]:
    if told["queues"] is None:
        yield "queues        not known: Redis does not answer"
        return
    for name, one in told["queues"].items():
        age = "" if one["oldest_s"] is None else f", the next for {one['oldest_s']} s"
        nobody = "" if one["workers"] else "  <- nobody works on it"
        yield f"queue         {name}: {one['depth']} wait{age}; {one['workers']} workers{nobody}"


def _retry_lines(told: Mapping[str, Any]) -> Iterator[str]:
    retries = told["retries"]
    if retries is None:
        return
    for job_type, one in retries["by_job_type"].items():
        mark = "  <- a spike" if one["spike"] else ""
        yield f"retries       {job_type}: {one['per_minute']} per minute over {retries['window_s'] // 60} min{mark}"
    for kind, count in retries["anomalies"].items():
        if count:
            yield f"odd           {kind}: {count}"


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else round(milliseconds / 1000, 1)
