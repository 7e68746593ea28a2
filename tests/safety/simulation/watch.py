"""What must hold at the very moment of a step, judged from outside: whatever does not is noted."""

from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from app.exchange.models import PinnedOrder
from app.journal import meta, schema
from app.journal.engine import Journal
from tests.safety.simulation.ports import NAMES
from tests.safety.simulation.virtual_redis import VirtualRedis


@dataclass(slots=True)
class Watch:
    """Looks at every dispatch and at every request that leaves."""

    journal: Journal
    redis: VirtualRedis
    breaches: list[str] = field(default_factory=list)
    _forgotten: set[tuple[str, int]] = field(default_factory=set)

    def dispatching(self) -> None:
        """Look at the kill switch: an order is being dispatched, and its transaction is about to commit."""
        key = (self.redis.get(NAMES.kill_switch) or b"false").decode().lower()
        with self.journal.read() as connection:
            latch = meta.load(connection).kill_state
        if key not in {"false", "reduce_only"} or latch not in {"RUN", "REDUCE_ONLY"}:
            self.breaches.append(f"an order is dispatched although the kill switch says {key}, latched {latch}")

    def sending(self, request: PinnedOrder) -> None:
        """Look for the request in the journal, and at the validity of its intent."""
        one = (request.client_order_id, request.timestamp_ms)
        attempts, intents = schema.attempts.c, schema.intents.c
        query = (
            select(intents.valid_until_ms)
            .join(schema.attempts, attempts.key == intents.key)
            .where(attempts.client_order_id == one[0], attempts.timestamp_ms == one[1])
        )
        with self.journal.read() as connection:
            found = connection.execute(query).first()
        if found is None and one not in self._forgotten:
            self.breaches.append(f"{one[0]} was sent with a timestamp that the journal does not hold")
        if found is not None and found[0] is not None and one[1] + request.recv_window_ms > found[0]:
            self.breaches.append(f"{one[0]} was sent though it could be executed after the end of its validity")

    def rolling_back(self, connection: Connection) -> None:
        """Remember what was journaled: a process that is about to send it may still do so."""
        query = select(schema.attempts.c.client_order_id, schema.attempts.c.timestamp_ms)
        self._forgotten |= {(row[0], row[1]) for row in connection.execute(query)}
