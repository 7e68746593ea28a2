"""Kills workers with SIGKILL at the moment when an order of theirs is on the wire."""

import os
import signal
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select

from app.journal import attempts, schema
from app.journal.engine import Journal


@dataclass(slots=True)
class Killer:
    """Looks for a worker with an open attempt and kills it."""

    journal: Journal
    redis: Redis
    dead: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)

    def strike(self) -> bool:
        """Kill one worker whose request is on the wire; return whether there was one."""
        with self.journal.look() as connection:
            found = attempts.open_by_owner(connection)
        for owner, key in found:
            if owner in self.dead:
                continue
            pid = self._pid(owner)
            if pid is None:
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.dead.add(owner)
            self.keys.append(key)
            return True
        return False

    def on_the_wire(self) -> int:
        """Return how many of the dead left their order's outcome open: it was journaled by somebody else."""
        table = schema.attempts.c
        with self.journal.read() as connection:
            rows = connection.execute(
                select(table.settled_by).where(table.owner.in_(self.dead), table.key.in_(self.keys))
            ).scalars()
            return sum(1 for settled_by in rows if settled_by not in {"dispatch", "own_answer", "own"})

    def _pid(self, owner: str) -> int | None:
        try:
            raw = self.redis.hget(f"rq:worker:{owner}", "pid")
        except RedisError:
            return None
        return int(raw) if isinstance(raw, bytes) and raw.isdigit() else None
