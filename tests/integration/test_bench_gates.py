"""The bench of the gates does what orders do: Redis holds what guard, circuit, limits and counters keep of them."""

from pathlib import Path

from app.clock import SystemClock
from app.composition import compose, guard_names
from app.embedded.redis_server import stop_redis
from app.job_safety.outcome import Venue
from app.settings import load_settings
from app.wiring import open_installation
from bench import gates

PAIRS, BLOCKS = 6, 1


def test_half_of_the_jobs_of_the_bench_pass_all_gates_and_are_counted(tmp_path: Path) -> None:
    taken = gates.measure(tmp_path, pairs=PAIRS, blocks=BLOCKS)
    assert {len(one) for one in (taken.wall, taken.cpu, taken.metrics, taken.line, taken.chance)} == {PAIRS}
    assert len(taken.in_redis) == BLOCKS
    guarded = 2 * PAIRS + BLOCKS * gates.BLOCK
    clock = SystemClock()
    settings = load_settings({"FILLONCE_HOME": str(tmp_path), "HOME": str(tmp_path), **gates.NO_EXCHANGE}, tmp_path)
    here = open_installation(settings, clock)
    try:
        values = [here.redis.get(key) for key in here.redis.scan_iter(f"{guard_names(settings).guard('order', '')}*")]
        assert sum(value.startswith(b"D:") for value in values if isinstance(value, bytes)) == guarded
        series = here.redis.hgetall(f"metrics:series:{here.mode}:{here.account}")
        assert series[b'["orders_placed_total","BTCUSDT","BUY"]'] == str(guarded).encode()
        context = compose(here, "reader")
        assert context.rate.limits(Venue.USDM) == gates.LIMITS
        circuit = context.breakers.read("order_usdm")
        assert circuit.calls > 0
        context.gateway.close()
    finally:
        here.journal.close()
        here.redis.close()
        stop_redis(tmp_path, clock)
