"""The kill switch as people throw it, and what came of it: for tests of whole installations."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.execution.context import ExecutionContext
from app.execution.kill import KillSwitch
from app.job_safety.kill_switch import FILE_NAME
from app.journal import kill_latches, meta, schema
from tests.support.nursery import Process
from tests.support.system import System

KEY = "quantum:global:kill_switch"
WHO = ("--reason", "test", "--by", "anna")


def run_cli(here: System, *arguments: str, **environment: str) -> Process:
    """Run `fillonce` to its end, whatever its exit code is."""
    one = begin_cli(here, *arguments, **environment)
    one.wait()
    return one


def begin_cli(here: System, *arguments: str, **environment: str) -> Process:
    """Start `fillonce` and leave it running."""
    one = here.nursery.start(
        "app.cli.main", arguments, environment={**here.environment, **environment}, folder=here.folder,
        name=f"{len(here.processes):03d}-cli",
    )  # fmt: skip
    here.processes.append(one)
    return one


def kill_file(here: System) -> Path:
    return Path(here.environment["FILLONCE_HOME"]) / FILE_NAME


def latched(here: System) -> str:
    """Return the state that the journal holds."""
    with here.installation.journal.read() as connection:
        return meta.load(connection).kill_state


def latches(here: System) -> dict[str, str]:
    """Return the state of every latch, by its source."""
    with here.installation.journal.read() as connection:
        return {latch.source.value: latch.state.value for latch in kill_latches.held(connection)}


def standing(here: System) -> dict[str, Any]:
    """Return everything of the switch that a drill must restore."""
    redis = here.installation.redis
    with here.installation.journal.read() as connection:
        stamp = meta.load(connection)
        held = [dict(row) for row in connection.execute(select(schema.kill_latches)).mappings()]
    return {
        "key": redis.get(KEY),
        "expiry": redis.pttl(KEY) >= 0,
        "state": stamp.kill_state,
        "reason": stamp.kill_reason,
        "latches": held,
    }


def audited(here: System) -> list[tuple[str, str, str, str]]:
    """Return (actor, source, from, to) of every change of the switch, oldest first."""
    import json

    with here.installation.journal.read() as connection:
        query = select(schema.audit).where(schema.audit.c.action == "kill_switch").order_by(schema.audit.c.seq)
        rows = [dict(row) for row in connection.execute(query).mappings()]
    found = [(row["actor"], json.loads(row["detail"])) for row in rows]
    return [(actor, detail["source"], detail["from"], detail["to"]) for actor, detail in found]


@contextlib.contextmanager
def composed(here: System, owner: str = "test") -> Iterator[tuple[ExecutionContext, KillSwitch]]:
    """Yield an execution context of this process, and its switch."""
    from app.composition import compose

    context = compose(here.installation, owner)
    assert context.kill is not None
    try:
        yield context, context.kill
    finally:
        context.record.close()
        context.gateway.close()
