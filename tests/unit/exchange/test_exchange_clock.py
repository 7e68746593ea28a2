"""Bounds of the exchange's time: always around the truth, never touched by the wall clock, and closed when unsure."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exchange.errors import ExchangeClockUnknownError, ExchangeQueryError, unreadable
from app.exchange.exchange_clock import DRIFT_PPM, ExchangeClock
from app.exchange.models import ServerTime
from app.job_safety.outcome import Venue

START_MS = 1_763_500_000_000


class World:
    """A clock that is moved by hand, and an exchange whose clock runs `ppm` faster."""

    def __init__(self, ppm: int = 0) -> None:
        self.seconds = 1000.0
        self.ppm = ppm
        self.there_s, self.back_s = 0.010, 0.010
        self.asked = 0
        self.is_down = False
        self.jump_ms = 0
        self.wall_ms = 0

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC)

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def truth_ms(self) -> float:
        return START_MS + (self.seconds - 1000.0) * 1000 * (1 + self.ppm / 1e6) + self.jump_ms

    def server_time(self, venue: Venue) -> ServerTime:
        self.asked += 1
        sent = self.seconds
        if self.is_down:
            self.seconds += 0.5
            raise ExchangeQueryError(unreadable(rule="test", message="down"), "time")
        self.seconds += self.there_s
        told = int(self.truth_ms())
        self.seconds += self.back_s
        return ServerTime(venue=venue, server_time_ms=told, sent_monotonic=sent, received_monotonic=self.seconds)


def clock_of(world: World) -> ExchangeClock:
    return ExchangeClock(world, world)


@given(
    ppm=st.integers(-DRIFT_PPM + 1, DRIFT_PPM - 1),
    steps=st.lists(
        st.tuples(st.floats(0, 40), st.floats(0.0001, 0.3), st.floats(0.0001, 0.3)), min_size=1, max_size=12
    ),
)
def test_truth_is_always_within_the_bounds(ppm: int, steps: list[tuple[float, float, float]]) -> None:
    world = World(ppm)
    clock = clock_of(world)
    for pause, world.there_s, world.back_s in steps:
        world.seconds += pause
        lower, upper = clock.bounds_ms(Venue.USDM)
        assert lower <= world.truth_ms() <= upper


def test_time_is_asked_for_once_in_thirty_seconds() -> None:
    world = World()
    clock = clock_of(world)
    for _ in range(29):
        clock.lower_bound_ms(Venue.USDM)
        world.seconds += 1
    assert world.asked == 1
    world.seconds += 1.1
    clock.lower_bound_ms(Venue.USDM)
    assert world.asked == 2


def test_freshening_asks_so_that_whoever_wants_the_bounds_next_need_not() -> None:
    world = World()
    clock = clock_of(world)
    for pause_s in (0, 1, 29.1):
        world.seconds += pause_s
        clock.freshen(Venue.USDM)
        asked = world.asked
        clock.lower_bound_ms(Venue.USDM)
        assert world.asked == asked
    assert world.asked == 2


def test_freshening_fails_as_the_bounds_would_when_no_measurement_counts() -> None:
    world = World()
    clock = clock_of(world)
    world.is_down = True
    for _ in range(2):  # the second time within the pause between two tries, when nobody is asked
        with pytest.raises(ExchangeClockUnknownError):
            clock.freshen(Venue.USDM)
    assert world.asked == 1


def test_sharper_measurement_is_kept_over_a_newer_vague_one() -> None:
    world = World()
    world.there_s = world.back_s = 0.001
    clock = clock_of(world)
    clock.refresh(Venue.USDM)
    world.seconds += 5
    world.there_s = world.back_s = 0.2
    clock.refresh(Venue.USDM)
    lower, upper = clock.bounds_ms(Venue.USDM)
    assert upper - lower < 20


def test_failing_refresh_is_borne_until_the_measurement_is_too_old() -> None:
    world = World()
    clock = clock_of(world)
    clock.lower_bound_ms(Venue.USDM)
    world.is_down = True
    world.seconds += 45
    assert clock.lower_bound_ms(Venue.USDM) <= world.truth_ms()
    world.seconds += 20
    with pytest.raises(ExchangeClockUnknownError) as raised:
        clock.lower_bound_ms(Venue.USDM)
    assert isinstance(raised.value.__cause__, ExchangeQueryError)


def test_exchange_that_is_down_is_not_asked_at_every_call() -> None:
    world = World()
    world.is_down = True
    clock = clock_of(world)
    for _ in range(20):
        with pytest.raises(ExchangeClockUnknownError):
            clock.lower_bound_ms(Venue.USDM)
    assert world.asked == 1


def test_vague_measurement_is_refused() -> None:
    world = World()
    world.there_s = 1.2
    with pytest.raises(ExchangeClockUnknownError, match="ms only"):
        clock_of(world).lower_bound_ms(Venue.USDM)


def test_wall_clock_jumps_do_not_matter() -> None:
    world = World()
    clock = clock_of(world)
    before = clock.lower_bound_ms(Venue.USDM)
    world.wall_ms = 10**15
    assert clock.lower_bound_ms(Venue.USDM) == before


@pytest.mark.parametrize("jump_ms", [-5000, 5000])
def test_newer_measurement_wins_when_the_exchanges_clock_was_set(jump_ms: int) -> None:
    world = World()
    world.there_s = world.back_s = 0.001
    clock = clock_of(world)
    clock.refresh(Venue.USDM)
    world.seconds += 5
    world.jump_ms = jump_ms
    world.there_s = world.back_s = 0.1
    clock.refresh(Venue.USDM)
    lower, upper = clock.bounds_ms(Venue.USDM)
    assert lower <= world.truth_ms() <= upper


def test_forgotten_clock_is_measured_anew() -> None:
    world = World()
    clock = clock_of(world)
    clock.lower_bound_ms(Venue.USDM)
    clock.forget(Venue.USDM)
    clock.lower_bound_ms(Venue.USDM)
    assert world.asked == 2


def test_venues_have_clocks_of_their_own() -> None:
    world = World()
    clock = clock_of(world)
    clock.lower_bound_ms(Venue.USDM)
    assert clock.estimate_ms(Venue.SPOT) is None
    assert clock.estimate_ms(Venue.USDM) is not None
