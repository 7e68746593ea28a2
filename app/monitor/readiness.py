"""Ready means: an order that opens risk would be let through now. Everything that speaks against it is named."""

from app.job_safety.kill_switch import KillState
from app.monitor import kill
from app.monitor.readings import Reading


def reasons(reading: Reading) -> list[str]:
    """Return why an order that opens risk would not be let through now; an empty list means ready."""
    found = [f"{store} does not answer: {error}" for store, error in reading.errors.items()]
    found += [
        f"the exchange's time is not known ({venue}): {clock.error}"
        for venue, clock in reading.clocks.items()
        if not clock.is_known
    ]
    if reading.kill_state is not KillState.RUN:
        held = kill.by_source(reading.holding, journal_is_readable=reading.journal is not None)
        stopping = [f"{name} {state.value}" for name, state in held.items() if state is not KillState.RUN]
        found.append(f"kill switch: {', '.join(stopping)}")
    if reading.redis is not None:
        for venue, pause in reading.redis.pauses.items():
            until = "until a person opens it" if pause.for_ms is None else f"for {pause.for_ms / 1000:.1f} s"
            found.append(f"{venue} is paused {until}: {pause.why}")
        found += [f"circuit {one.job_type} is {one.state.value}" for one in reading.redis.breakers if one.would_block]
    return found
