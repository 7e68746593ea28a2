"""Which tokens are turned away without end, and for how long."""

from app.monitor.kill_door import MINUTE_S, WRONG_PER_MINUTE, WrongTokens
from tests.support.clock import FakeClock


def test_wrong_tokens_are_too_many_within_any_minute_and_not_after_it() -> None:
    clock = FakeClock()
    wrong = WrongTokens(clock=clock)
    for _ in range(WRONG_PER_MINUTE):
        assert not wrong.are_too_many()
        clock.advance(1000)
    assert wrong.are_too_many()
    clock.advance(round(MINUTE_S * 1000) - WRONG_PER_MINUTE * 1000)
    assert not wrong.are_too_many(), "the first is a minute old"
    assert wrong.are_too_many(), "the second is not"


def test_what_is_turned_away_does_not_lengthen_the_wait() -> None:
    """Else a flood would keep itself going for ever."""
    clock = FakeClock()
    wrong = WrongTokens(clock=clock)
    for _ in range(100):
        wrong.are_too_many()
    clock.advance(round(MINUTE_S * 1000))
    assert not wrong.are_too_many()
