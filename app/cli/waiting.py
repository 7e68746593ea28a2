"""Waits for intents by asking the journal, which is the only one that knows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from app.cli.output import say
from app.cli.progress import count_bar
from app.clock import Clock, SystemClock
from app.job_safety.errors import IntentNotFoundError
from app.job_safety.state import TERMINAL_STATES, IntentState
from app.journal import schema
from app.journal.engine import Journal

POLL_MIN_S: Final = 0.05
POLL_MAX_S: Final = 2.0
POLL_SHARE: Final = 10
"""A pause is at least so many times as long as the question took: waiting must not load the journal."""

WORDS_EVERY_S: Final = 10
MAX_NAMED: Final = 5
CHUNK: Final = 500

_T = schema.intents
_HAS_FILLS: Final = (IntentState.FILLED, IntentState.CANCELED, IntentState.EXPIRED_BY_EXCHANGE)
"""Final states in which an order may have trades, and counts as done when they are booked."""

_OPEN: Final = tuple(
    state.value for state in IntentState if state not in TERMINAL_STATES and state is not IntentState.QUARANTINED
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How intents stand: how many there are, and how many are neither finished nor quarantined, with some names."""

    total: int
    unfinished: int
    quarantined: int
    unfinished_keys: tuple[str, ...] = ()
    quarantined_keys: tuple[str, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether nothing moves by itself any more."""
        return self.unfinished == 0

    def fields(self) -> dict[str, object]:
        """Return what `--json` prints. At most `MAX_NAMED` keys are named."""
        return {
            "finished": self.total - self.unfinished - self.quarantined,
            "unfinished": self.unfinished,
            "quarantined": self.quarantined,
            "unfinished_keys": list(self.unfinished_keys),
            "quarantined_keys": list(self.quarantined_keys),
        }


def wait_until_settled(
    journal: Journal, keys: Sequence[str], *, timeout_s: int, clock: Clock | None = None
) -> Standing:
    """Return once all are finished or quarantined, or when time has run out.

    Args:
        journal: Where to look.
        keys: Which intents; none: all that are not finished, those included that arrive meanwhile.
        timeout_s: How long at most. 0 only looks.
        clock: Measures and sleeps.

    Raises:
        IntentNotFoundError: the journal does not know one of the keys.
    """
    clock = clock or SystemClock()
    wanted = list(dict.fromkeys(keys))
    _check_known(journal, wanted)
    deadline = clock.monotonic() + timeout_s
    next_words = clock.monotonic() + WORDS_EVERY_S
    with count_bar("waiting") as show:
        while True:
            asked = time.perf_counter()
            standing = look(journal, wanted)
            took_s = time.perf_counter() - asked
            left_s = deadline - clock.monotonic()
            if standing.is_settled or left_s <= 0:
                return standing
            show(standing.total - standing.unfinished, standing.total)
            if clock.monotonic() >= next_words:
                say(f"{standing.unfinished} of {standing.total} are not finished yet")
                next_words += WORDS_EVERY_S
            clock.sleep(min(left_s, POLL_MAX_S, max(POLL_MIN_S, took_s * POLL_SHARE)))


def look(journal: Journal, keys: Sequence[str]) -> Standing:
    """Return how `keys` stand now; without keys: how all intents stand."""
    parts: list[ColumnElement[bool] | None] = [
        _T.c.key.in_(list(keys[start : start + CHUNK])) for start in range(0, len(keys), CHUNK)
    ]
    unfinished, quarantined, total = 0, 0, len(keys)
    open_keys: list[str] = []
    stuck_keys: list[str] = []
    with journal.read() as connection:
        for part in parts or [None]:
            count, some = _count(connection, _unfinished(), part)
            unfinished, open_keys = unfinished + count, open_keys + some
            count, some = _count(connection, _T.c.state == IntentState.QUARANTINED.value, part)
            quarantined, stuck_keys = quarantined + count, stuck_keys + some
        if not keys:
            total = connection.execute(select(func.count()).select_from(_T)).scalar_one()
    return Standing(
        total=total,
        unfinished=unfinished,
        quarantined=quarantined,
        unfinished_keys=tuple(open_keys[:MAX_NAMED]),
        quarantined_keys=tuple(stuck_keys[:MAX_NAMED]),
    )


def _unfinished() -> ColumnElement[bool]:
    is_unbooked = and_(
        _T.c.type == "order", _T.c.state.in_([state.value for state in _HAS_FILLS]), _T.c.booked_at_ms.is_(None)
    )
    return or_(_T.c.state.in_(_OPEN), is_unbooked)


def _count(
    connection: Connection, condition: ColumnElement[bool], part: ColumnElement[bool] | None
) -> tuple[int, list[str]]:
    where = condition if part is None else and_(condition, part)
    count = connection.execute(select(func.count()).select_from(_T).where(where)).scalar_one()
    if count == 0:
        return 0, []
    return count, list(connection.execute(select(_T.c.key).where(where).limit(MAX_NAMED)).scalars())


def _check_known(journal: Journal, keys: Sequence[str]) -> None:
    known: set[str] = set()
    with journal.read() as connection:
        for start in range(0, len(keys), CHUNK):
            query = select(_T.c.key).where(_T.c.key.in_(list(keys[start : start + CHUNK])))
            known.update(connection.execute(query).scalars())
    if missing := [key for key in keys if key not in known]:
        raise IntentNotFoundError(f"the journal knows no intent with key {missing[0][:200]!r}")
