"""Who may be at work in a process beside whom."""

import threading

import pytest

from workers.room import Room

SOON_S = 10


@pytest.fixture
def room() -> Room:
    return Room()


def test_all_are_at_work_at_once_unless_one_is_alone(room: Room) -> None:
    assert room.enter("a")
    assert room.enter("b")
    room.leave("b")
    assert room.stay_alone("a")
    assert room.stay_alone("a")
    assert not room.enter("b")
    room.leave("a")
    assert room.enter("b")
    assert room.enter("a")


def test_who_could_not_be_alone_is_next_and_lets_nobody_pass(room: Room) -> None:
    room.enter("a")
    room.enter("b")
    assert not room.stay_alone("a")
    room.leave("a")
    assert not room.may_enter("a"), "b is still inside"
    assert not room.enter("c")
    room.leave("b")
    assert not room.enter("c")
    assert room.is_next("a")
    assert room.enter("a")
    assert room.stay_alone("a"), "it came in alone"
    assert not room.enter("b")
    room.leave("a")
    assert not room.is_next("a")
    assert room.enter("b")


def test_of_two_that_want_to_be_alone_one_waits_for_the_other(room: Room) -> None:
    room.enter("a")
    room.enter("b")
    assert not room.stay_alone("a")
    assert not room.stay_alone("b")
    room.leave("a")
    room.leave("b")
    assert not room.enter("b")
    assert not room.is_next("b")
    assert room.enter("a")
    room.leave("a")
    assert room.enter("b")
    assert room.stay_alone("b")


def test_who_has_nothing_to_be_alone_with_lets_the_others_in(room: Room) -> None:
    room.enter("a")
    room.enter("b")
    room.stay_alone("a")
    room.leave("a")
    room.renounce("b")
    room.leave("b")
    assert not room.enter("b"), "it was not b that the room is kept for"
    room.renounce("a")
    assert room.enter("b")


def test_waiting_ends_when_the_room_is_free_and_not_before(room: Room) -> None:
    room.enter("a")
    room.stay_alone("a")
    assert not room.wait("b", 0.01)
    seen: list[bool] = []
    waiting = threading.Thread(target=lambda: seen.append(room.wait("b", SOON_S)))
    waiting.start()
    room.leave("a")
    waiting.join(SOON_S)
    assert seen == [True]
