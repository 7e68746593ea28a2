"""Leases are renewed beside the work, by one thread, for as long as the work lasts and no longer."""

import threading
from collections.abc import Callable
from queue import Empty, Queue
from typing import cast

import pytest

from app.job_safety.lease_keeper import LeaseKeeper
from app.job_safety.outcome import Venue
from app.job_safety.side_effect_guard import SideEffectGuard, Token, Told

RENEW_S = 0.01
WAIT_S = 20.0


class Guard:
    """Notes what is renewed."""

    def __init__(self) -> None:
        self.renewed: Queue[tuple[str, str, Token, Told | None]] = Queue()

    def renew(self, effect_type: str, key: str, token: Token, told: Told | None) -> bool:
        self.renewed.put((effect_type, key, token, told))
        return True

    def until(self, token: str) -> tuple[str, str, Token, Told | None]:
        """Return the next renewal of `token`; whatever else was renewed is passed over."""
        while True:
            one = self.renewed.get(timeout=WAIT_S)
            if one[2] == token:
                return one


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def keeper(guard: Guard) -> LeaseKeeper:
    return LeaseKeeper(cast("SideEffectGuard", guard), renew_s=RENEW_S)


def test_lease_is_renewed_again_and_again_while_the_block_lasts(guard: Guard, keeper: LeaseKeeper) -> None:
    told = Told(venue=Venue.USDM)
    with keeper.keep("order", "k", Token("me#1"), told):
        assert [guard.until("me#1") for _ in range(3)] == [("order", "k", "me#1", told)] * 3


def test_lease_is_not_renewed_once_the_block_has_ended_by_whatever(guard: Guard, keeper: LeaseKeeper) -> None:
    def work() -> None:
        with keeper.keep("order", "k", Token("me#1")):
            guard.until("me#1")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    with keeper.keep("order", "other", Token("me#2")):
        guard.until("me#2")
        guard.until("me#2")  # whatever was under way when the block ended is over by now
        while True:
            try:
                guard.renewed.get_nowait()
            except Empty:
                break
        assert {guard.renewed.get(timeout=WAIT_S)[2] for _ in range(3)} == {"me#2"}


def test_lease_that_comes_after_a_long_rest_is_renewed(guard: Guard, keeper: LeaseKeeper) -> None:
    rest = threading.Event()
    for number in range(5):
        with keeper.keep("order", "k", Token(f"me#{number}")):
            guard.until(f"me#{number}")
        rest.wait(5 * RENEW_S)  # long enough for the thread to find nothing and lie down


class Closing(threading.Event):
    """Set until it is cleared, just before which something happens."""

    def __init__(self, first: Callable[[], None]) -> None:
        super().__init__()
        self.set()
        self._first = first

    def clear(self) -> None:
        self._first()
        super().clear()


def test_no_lease_is_missed_that_comes_as_the_thread_lies_down(guard: Guard, keeper: LeaseKeeper) -> None:
    late = keeper.keep("order", "k", Token("late"))
    with keeper.keep("order", "k", Token("first")):
        guard.until("first")
        keeper._busy = Closing(late.__enter__)
    guard.until("late")
    guard.until("late")
