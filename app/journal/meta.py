"""Who this journal belongs to: installation, account label, mode and epoch. Another mode or account is refused."""

import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from app.job_safety.errors import WrongInstallationError
from app.journal import schema
from app.journal.engine import Journal
from app.journal.fence import Fence, next_fence
from app.journal.prepared import Prepared
from app.journal.sql import insert_ignore


class Meta(NamedTuple):
    """The one row of `journal_meta`: a tuple, since every order reads it twice."""

    installation: str
    account: str
    mode: str
    epoch: int
    kill_state: str
    kill_epoch: int
    kill_reason: str
    created_at_ms: int
    restored_at_ms: int | None


COLUMNS: Final = [schema.journal_meta.c[name] for name in Meta._fields]
_READ = Prepared(select(*COLUMNS))
_SHARED: Final = Prepared(select(*COLUMNS).with_for_update(read=True))


def claim(journal: Journal, *, account: str, mode: str, now_ms: int) -> Meta:
    """Stamp a new journal with `account` and `mode`, or check the stamp of an old one.

    Raises:
        WrongInstallationError: the journal belongs to another account or mode.
    """
    with journal.read() as connection:
        meta = _read(connection)
    if meta is None:
        with journal.write() as connection:
            row = {"id": 1, "installation": uuid.uuid4().hex, "account": account, "mode": mode, "created_at_ms": now_ms}
            insert_ignore(connection, schema.journal_meta, [row])
            meta = load(connection)
    if (meta.account, meta.mode) != (account, mode):
        raise WrongInstallationError(
            f"this journal belongs to account {meta.account!r} in mode {meta.mode!r}, not to {account!r} in {mode!r}; "
            "set FILLONCE_ACCOUNT and TRADING_MODE as it was made, or DATABASE_URL (FILLONCE_HOME) to another journal"
        )
    return meta


def load(connection: Connection, *, share: bool = False) -> Meta:
    """Return the stamp; with `share`, nobody changes it (a kill command, say) until the transaction ends.

    Raises:
        WrongInstallationError: the journal has none.
    """
    found = (_SHARED if share else _READ).rows(connection)
    return stamp_from(found)


def stamp_from(found: Sequence[Sequence[Any]]) -> Meta:
    """Return the stamp that a statement on `COLUMNS` has yielded.

    Raises:
        WrongInstallationError: it has yielded none.
    """
    if not found:
        raise WrongInstallationError("this journal has no stamp: open it with `claim` first")
    return Meta._make(found[0])


def raise_fence(connection: Connection, fence: int) -> Fence:
    """Return the fence after `fence` in the journal's present epoch."""
    return next_fence(fence, load(connection).epoch)


def _read(connection: Connection) -> Meta | None:
    found = _READ.rows(connection)
    return stamp_from(found) if found else None
