"""What the follow-ups of a booked trade do: post it to the ledger, enter it into profit and loss.

The effect, the follow-up's end and the mark on the intent are one transaction, and every effect is unique by the trade
in the database: delivered twice, late or by two workers at once, a follow-up does its work once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from app.books import fills, ledger, pnl
from app.books.assets import Assets, AssetsOf, assets_of
from app.books.booked import mark_all_booked
from app.books.booking import POST_LEDGER, POST_PNL
from app.books.fills import SymbolKey
from app.books.outbox import finish_all
from app.books.sql import lock_intents
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue
from app.journal import followups
from app.journal.followups import Followup

KINDS: Final = frozenset({POST_LEDGER, POST_PNL})
BATCH: Final = 50
"""Follow-ups per transaction of `drain`: one sync to disk for all of them."""

POSTPONE_MS: Final = 60_000
"""After how long a follow-up that broke a promise is tried again; meanwhile it does not hold up the others."""

_BROKEN: Final = (InvariantViolatedError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Keys of the follow-ups that one `drain` has done, and of those that it could not do: these need a person."""

    done: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def handle_post_ledger(connection: Connection, followup: Followup, *, now_ms: int) -> bool:
    """Post the trades of `followup` to the ledger, and finish it; return False if it was finished before.

    Raises:
        InvariantViolatedError: a transaction would not sum to zero, or the trades are not in the journal.
    """
    return bool(_run(connection, POST_LEDGER, [followup], now_ms))


def handle_post_pnl(connection: Connection, followup: Followup, *, now_ms: int) -> bool:
    """Enter the trades of `followup` into profit and loss, and finish it; return False if it was finished before.

    Raises:
        InvariantViolatedError: the trades are not in the journal.
    """
    return bool(_run(connection, POST_PNL, [followup], now_ms))


def drain(connection: Connection, kind: str, *, now_ms: int, limit: int = BATCH) -> Drained:
    """Do up to `limit` due follow-ups of `kind` (one of `KINDS`) in the caller's one transaction.

    Those that another worker holds are passed over. If one breaks a promise, the others are done one by one, and it is
    postponed with its error.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a follow-up of the books")
    work = followups.open_of_kind(connection, kind, now_ms=now_ms, limit=limit, lock=True)
    if not work:
        return Drained()
    try:
        with connection.begin_nested():
            done = _run(connection, kind, work, now_ms)
    except _BROKEN:
        return _one_by_one(connection, kind, work, now_ms)
    return Drained(done=tuple(sorted(done)))


def _one_by_one(connection: Connection, kind: str, work: Sequence[Followup], now_ms: int) -> Drained:
    done: list[str] = []
    failed: list[str] = []
    for followup in work:
        try:
            with connection.begin_nested():
                done += _run(connection, kind, [followup], now_ms)
        except _BROKEN as error:
            words = f"{type(error).__name__}: {error}"
            followups.postpone(connection, followup.key, run_at_ms=now_ms + POSTPONE_MS, error=words)
            failed.append(followup.key)
    return Drained(done=tuple(done), failed=tuple(failed))


def _run(connection: Connection, kind: str, work: Sequence[Followup], now_ms: int) -> set[str]:
    wanted: defaultdict[SymbolKey, set[int]] = defaultdict(set)
    for followup in work:
        wanted[_place(followup)].update(followup.payload["trade_ids"])
    found = fills.load(connection, wanted)
    keys = {fill.key for fill in found if fill.key is not None}
    lock_intents(connection, keys)
    if kind == POST_LEDGER:
        ledger.post_trades(connection, found, now_ms=now_ms, assets=_assets_in(work))
    else:
        pnl.post_trades(connection, found, assets=_assets_in(work))
    finished = finish_all(connection, [followup.key for followup in work], now_ms=now_ms)
    mark_all_booked(connection, keys, now_ms=now_ms)
    return finished


def _place(followup: Followup) -> SymbolKey:
    payload = followup.payload
    return SymbolKey(account=payload["account"], venue=payload["venue"], symbol=payload["symbol"])


def _assets_in(work: Sequence[Followup]) -> AssetsOf:
    known: Mapping[tuple[str, str], Assets] = {
        (each.payload["venue"], each.payload["symbol"]): Assets(base=each.payload["base"], quote=each.payload["quote"])
        for each in work
    }

    def find(venue: Venue, symbol: str) -> Assets:
        return known.get((str(venue), symbol)) or assets_of(venue, symbol)

    return find
