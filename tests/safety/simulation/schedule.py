"""Makes the lists of choices: half of them at random, half of them phrases that are known to lead into trouble.

Pure chance rarely pauses a worker at one point, lets the world go on for long enough, and wakes it. A phrase says just
that, with everything else left to chance. What the numbers mean stands in `driver.py`.
"""

import random

DULL, SWITCH, FAULT, KILL, FREEZE, WAKE, PASS, START = 0, 100, 130, 143, 150, 157, 170, 230
ROUNDS = tuple(range(198, 206))
"""The last of its eight lets sweeper, reconciler and workers have eight turns, the others fewer."""

FLUSH, FOREIGN, KILL_SWITCH, FILL, CANCEL, LAG, CLOCK, LATCH, BACKUP, RESTORE = (
    245,
    248,
    250,
    252,
    255,
    257,
    261,
    265,
    267,
    268,
)
LONG = tuple(range(3, 8))
"""Pauses longer than a fence (`driver.PAUSES_MS`)."""
WORKER, RECONCILER, OTHERS = range(144), range(144, 208), range(208, 256)
"""What `Run._start` starts."""


def make(chance: random.Random) -> list[int]:
    """Return the choices of one run."""
    wanted = chance.randint(30, 110)
    choices: list[int] = []
    while len(choices) < wanted:
        if chance.random() < 0.5:
            choices.append(chance.randint(0, 268))
        else:
            choices += chance.choice(_PHRASES)(chance)
    return choices


def _any(chance: random.Random) -> int:
    return chance.randint(0, 255)


def _steps(chance: random.Random, most: int) -> list[int]:
    return [DULL] * chance.randint(0, most)


def _loudly(chance: random.Random, most: int) -> list[int]:
    """Steps of the process in hand, each followed by what a placement would be answered, if it is one."""
    return [one for _ in range(chance.randint(0, most)) for one in (DULL, _any(chance))]


def _zombie(chance: random.Random) -> list[int]:
    """A worker is paused anywhere, the others go on with its work for longer than its fence, and it wakes up."""
    return [
        *(START, chance.choice(WORKER)), *_steps(chance, 14), FREEZE, PASS, chance.choice(LONG),
        *(chance.choice(ROUNDS) for _ in range(chance.randint(1, 2))), WAKE, SWITCH, *_steps(chance, 14),
    ]  # fmt: skip


def _short_pause(chance: random.Random) -> list[int]:
    """A worker is paused for less than its lease; nobody else does anything."""
    return [START, chance.choice(WORKER), *_steps(chance, 12), PASS, chance.randint(0, 2), *_loudly(chance, 8)]


def _sick_store(chance: random.Random) -> list[int]:
    """A worker's store or question fails at any point: down, or done and not answered, or not done."""
    return [START, chance.choice(WORKER), *_steps(chance, 10), FAULT, _any(chance), *_loudly(chance, 8)]


def _death(chance: random.Random) -> list[int]:
    """A worker is killed anywhere, its lease runs out, and the others find its work."""
    return [START, chance.choice(WORKER), *_loudly(chance, 7), KILL, PASS, chance.choice(LONG), chance.choice(ROUNDS)]


def _long_doubt(chance: random.Random) -> list[int]:
    """Something is in doubt for long, and somebody's order comes by as a witness."""
    return [
        chance.choice(ROUNDS), _any(chance), *([FOREIGN] * chance.randint(0, 1)), ROUNDS[-1], _any(chance),
        *([FOREIGN] * chance.randint(0, 1)), ROUNDS[-1], _any(chance),
    ]  # fmt: skip


def _second_reconciler(chance: random.Random) -> list[int]:
    """A reconciler is paused between its question and its verdict, and others settle the matter meanwhile."""
    return [
        *(START, chance.choice(RECONCILER)), *_steps(chance, 8), FREEZE, *([FOREIGN] * chance.randint(0, 1)),
        *(chance.choice(ROUNDS), _any(chance), chance.choice(ROUNDS), _any(chance)), WAKE, SWITCH,
        *_steps(chance, 8),
    ]  # fmt: skip


def _dead_bookkeeper(chance: random.Random) -> list[int]:
    """A sweep, a follower or a bookkeeper is killed in its work."""
    return [START, chance.choice(OTHERS), *_steps(chance, 8), KILL]


def _pulled_switch(chance: random.Random) -> list[int]:
    """Somebody pulls the kill switch while a worker is on its way, and perhaps Redis forgets it."""
    pulled = (KILL_SWITCH, chance.choice((0, 2))) if chance.random() < 0.6 else (LATCH, 0)
    return [
        *(START, chance.choice(WORKER)), *_steps(chance, 6), *pulled,
        *([FLUSH] * chance.randint(0, 1)), *_steps(chance, 8), KILL_SWITCH, 3, LATCH, 1,
    ]  # fmt: skip


def _canceled(chance: random.Random) -> list[int]:
    """An order is canceled while it is on its way or in doubt; the cancel itself is paused or killed."""
    return [
        *(START, chance.choice(WORKER)), *_loudly(chance, 8), CANCEL, _any(chance), START, chance.choice(WORKER),
        *_steps(chance, 9), chance.choice((FREEZE, KILL, FILL)), chance.choice(ROUNDS), _any(chance), WAKE,
        *_steps(chance, 6),
    ]  # fmt: skip


def _rolled_back(chance: random.Random) -> list[int]:
    """The journal is rolled back behind a dispatch; perhaps with the worker still at it, and with Redis empty."""
    return [
        BACKUP, START, chance.choice(WORKER), *_steps(chance, 12), *([FREEZE] * chance.randint(0, 1)), RESTORE,
        *([FLUSH] * chance.randint(0, 1)), *((chance.choice(ROUNDS), _any(chance)) if chance.random() < 0.5 else ()),
        *(START, chance.choice(WORKER)), *_steps(chance, 10), WAKE, SWITCH, *_steps(chance, 6),
    ]  # fmt: skip


_PHRASES = (
    *(
        _zombie,
        _zombie,
        _short_pause,
        _sick_store,
        _death,
        _death,
        _long_doubt,
        _long_doubt,
        _second_reconciler,
        _dead_bookkeeper,
    ),
    *(
        _pulled_switch,
        _canceled,
        _rolled_back,
        lambda chance: [LAG, _any(chance)],
        lambda chance: [CLOCK, _any(chance)],
    ),
)
