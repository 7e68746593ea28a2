"""The circuit in Lua against a small model of it in Python: any order of calls, results, time and people's words."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis import Redis

from app.job_safety.admission import Admitted, Blocked
from app.job_safety.circuit_breaker import BreakerPolicy, BreakerState
from app.job_safety.circuit_changes import CircuitChanges
from tests.support.gates import JOB, NAMES, Bench, stopped_clock
from tests.support.redis_server import RedisServer

POLICY = BreakerPolicy(
    window_ms=1_000, window_calls=8, min_calls=4, rate_percent=60, consecutive=4, open_ms=200, open_max_ms=500,
    probes=2, lease_ms=100,
)  # fmt: skip


@dataclass(slots=True)
class Model:
    """What a circuit should do, as plainly as it can be said."""

    now: int = 1_800_000_000_000
    state: str = "closed"
    generation: int = 0
    until: int = 0
    streak: int = 0
    row: int = 0
    successes: int = 0
    calls: list[tuple[int, str, int]] = field(default_factory=list)
    permits: dict[str, int] = field(default_factory=dict)
    override: str = ""
    override_until: int = 0
    changes: int = 0

    def move(self, to: str, *, keeps_override: bool = False) -> None:
        self.generation, self.changes = self.generation + 1, self.changes + 1
        self.calls, self.permits, self.row, self.successes = [], {}, 0, 0
        self.state = to
        if to == "closed":
            self.streak = 0
        if not keeps_override:
            self.override = ""

    def trip(self) -> None:
        self.until = self.now + min(POLICY.open_ms * 2**self.streak, POLICY.open_max_ms)
        self.streak += 1
        self.move("open")

    def settle(self) -> None:
        if self.override and self.now >= self.override_until:
            self.override = ""
            self.changes += 1
        if self.state == "open" and self.now >= self.until:
            self.move("half_open")

    def admits(self, token: str) -> int | None:
        """Return the generation of an admitted call, or None."""
        self.settle()
        if self.state == "open":
            return None
        if self.state == "half_open":
            self.permits = {held: until for held, until in self.permits.items() if until > self.now}
            if len(self.permits) + self.successes >= POLICY.probes:
                return None
            self.permits[token] = self.now + POLICY.lease_ms
        return self.generation

    def hears(self, token: str, generation: int, weight: int | None) -> None:
        self.permits.pop(token, None)
        if weight is None:
            return
        self.settle()
        if generation != self.generation:
            return
        if self.state == "half_open":
            self.successes += weight == 0
            if weight:
                self.trip()
            elif self.successes >= POLICY.probes:
                self.move("closed")
            return
        young = [one for one in self.calls if one[0] > self.now - POLICY.window_ms]
        # Of calls that end within one millisecond, those with the smallest names leave the window first.
        this = (self.now, f"{token.replace('#', '-')}#1:{weight}", weight)
        self.calls = sorted([*young, this])[-POLICY.window_calls :]
        self.row = self.row + weight if weight else 0
        if weight and self.override != "closed" and self.is_too_much():
            self.trip()

    def is_too_much(self) -> bool:
        bad = sum(weight for *_, weight in self.calls)
        good = sum(weight == 0 for *_, weight in self.calls)
        too_many = len(self.calls) >= POLICY.min_calls and 100 * bad // (bad + good) >= POLICY.rate_percent
        return self.row >= POLICY.consecutive or too_many

    def is_told(self, state: str, ttl: int) -> None:
        self.settle()
        self.override, self.override_until = state, self.now + ttl
        if state == "open":
            self.until = self.override_until
        self.move(state, keeps_override=True)


class CircuitAgainstModel(RuleBasedStateMachine):
    redis: Redis

    @initialize()
    def begin(self) -> None:
        self.redis.flushdb()
        self.model = Model()
        self.bench = Bench(self.redis, POLICY)
        self.bench.set_time(self.model.now)
        self.calls: list[tuple[str, Admitted]] = []

    @rule(ms=st.sampled_from([1, 99, 100, 101, 199, 200, 201, 400, 999, 1_000]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms
        self.bench.wait(ms)

    @rule()
    def call_begins(self) -> None:
        key, answer = self.bench.ask()
        token = f"w#{key.partition('-')[2]}"
        generation = self.model.admits(token)
        if generation is None:
            assert isinstance(answer, Blocked), self.model
            return
        assert isinstance(answer, Admitted), (answer, self.model)
        assert answer.token == token
        assert answer.ticket is not None
        assert answer.ticket.generation == generation
        self.calls.append((key, answer))

    @rule(which=st.integers(0, 7), weight=st.sampled_from([None, 0, 0, 1, 1, 3]))
    def call_ends(self, which: int, weight: int | None) -> None:
        if self.calls:
            key, admitted = self.calls.pop(which % len(self.calls))
            assert admitted.ticket is not None
            self.bench.tell(key, admitted, weight)
            self.model.hears(admitted.token, admitted.ticket.generation, weight)

    @rule(state=st.sampled_from(BreakerState), ttl=st.sampled_from([1, 150, 700]))
    def person_says(self, state: BreakerState, ttl: int) -> None:
        self.bench.breakers.override(JOB, state, by="anna", reason="because", ttl_ms=ttl)
        self.model.is_told(state.value, ttl)

    @rule()
    def person_resets(self) -> None:
        self.bench.breakers.reset(JOB, by="anna", reason="because")
        self.model.settle()
        self.model.move("closed")

    @rule()
    def keeper_ticks(self) -> None:
        self.bench.breakers.tick()
        self.model.settle()

    @invariant()
    def circuit_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        status, model = self.bench.status, self.model
        is_over = model.state == "open" and model.now >= model.until
        assert status.state == ("half_open" if is_over else model.state)
        assert status.generation == model.generation
        assert (status.override is not None) == (model.override != "" and model.now < model.override_until)
        assert status.consecutive_failures == model.row
        young = [one for one in model.calls if one[0] > model.now - POLICY.window_ms]
        assert (status.calls, status.weight) == (len(young), sum(weight for *_, weight in young))
        assert len(CircuitChanges(self.redis, NAMES).read(100_000)) == model.changes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One of its own: examples run one after the other on an emptied database."""
    one = RedisServer(Path(tmp_path_factory.mktemp("redis"))).start()
    yield one
    one.kill()


def test_circuit_does_what_the_model_does(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_clock(monkeypatch)
    with Redis.from_url(server.url) as redis:
        CircuitAgainstModel.redis = redis
        run_state_machine_as_test(
            CircuitAgainstModel,
            settings=settings(
                max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
