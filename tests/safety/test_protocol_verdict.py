"""The seventh way to break the protocol: a person says "not executed" while a zombie can still send.

The verdict waits until the fence of every attempt, and 2 s, have passed on the exchange's clock.
"""

from decimal import Decimal

import pytest
from sqlalchemy import select

from app.execution.resolve import Ruling, TooEarlyError, Verdict, resolve
from app.job_safety.state import IntentState
from app.journal import schema
from tests.safety.simulation.exchange import QUERIES
from tests.safety.simulation.world import LONG, SYMBOL, World

S = IntentState
NOT_EXECUTED = Ruling(verdict=Verdict.NOT_EXECUTED, reason="I looked at the order list", by="ann")


def assert_too_early(world: World) -> None:
    before = world.snapshot()
    with pytest.raises(TooEarlyError, match="could still be executed; try again in"):
        resolve(world.hand, "k1", NOT_EXECUTED)
    assert world.snapshot() == before, "a verdict that was not taken has left something behind"


def test_verdict_waits_until_the_fence_and_two_seconds_have_passed(world: World) -> None:
    """The request is on its way for almost as long as it may be; everybody who asks is told that there is no order."""
    world.order(valid_for_s=LONG)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="delay 2900")
    for _ in range(5):
        assert_too_early(world)
        world.pass_time(998)
    world.pass_time(9)
    assert_too_early(world)
    world.pass_time(1)

    assert resolve(world.hand, "k1", NOT_EXECUTED).state == S.EXPIRED


@pytest.mark.parametrize("ahead_ms", [0, 5_000, -5_000])
def test_verdict_waits_while_a_zombie_can_still_send(world: World, ahead_ms: int) -> None:
    """Redis has lost the lease of a worker that was stopped right before it sends. The fence goes by the exchange's
    clock, and the engine's may be behind that.
    """
    world.local_ahead_ms = ahead_ms
    world.exchange.engine_behind_ms = 1_000
    world.order(valid_for_s=LONG)
    zombie = world.worker("k1")
    world.run_until(zombie, "send:place")
    zombie.is_frozen = True
    world.redis.flushall()
    world.finish(world.reconciler("k1"))
    assert world.row().state == S.IN_DOUBT
    assert_too_early(world)
    world.pass_time(3_500)
    assert_too_early(world)

    zombie.is_frozen = False
    world.finish(zombie, send_place="answer_lost")

    assert (world.row().state, world.executions()) == (S.IN_DOUBT, 1)
    world.settle()
    assert (world.row().state, world.executions()) == (S.FILLED, 1)


def test_verdict_waits_for_the_fence_of_every_attempt(world: World) -> None:
    world.resend_reduction("lost")
    world.finish(world.worker("k1"), send_place="delay 2900")
    assert len(world.attempts()) == 2

    for _ in range(5):
        assert_too_early(world)
        world.pass_time(999)


def test_verdict_not_executed_closes_the_order_for_good_and_is_audited(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.finish(world.worker("k1"), send_place="lost")
    world.pass_time(5_001)
    resolve(world.hand, "k1", NOT_EXECUTED)
    world.exchange.foreign_order(SYMBOL)

    world.finish(world.worker("k1"))
    world.settle()

    assert (world.row().state, len(world.attempts()), world.executions()) == (S.EXPIRED, 1, 0)
    with world.journal.read() as connection:
        (entry,) = connection.execute(select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.subject))
    assert tuple(entry) == ("ann", "resolve", "k1")


def test_wrong_verdict_is_overturned_by_proof_of_execution(world: World) -> None:
    world.order(valid_for_s=LONG)
    world.exchange.stuck_at_ms = dict.fromkeys(QUERIES, world.clock.now_ms() - 1)
    world.finish(world.worker("k1"), send_place="answer_lost")
    world.pass_time(5_001)
    assert resolve(world.hand, "k1", NOT_EXECUTED).state == S.EXPIRED

    world.exchange.stuck_at_ms.clear()
    world.settle()

    assert (world.row().state, world.row().executed_quantity) == (S.FILLED, Decimal(1))
    assert world.alarms("late_fill") == 1
