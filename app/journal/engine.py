"""One way into the database: read and write transactions on SQLite or PostgreSQL, with the same promises.

A write transaction is on disk when `write()` returns: WAL with synchronous=FULL (or DELETE with FULL on an SQLite below
3.51.3, whose WAL has a rare corruption bug with several processes), synchronous_commit on PostgreSQL.
"""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import NullPool

from app.job_safety.errors import InvariantViolatedError, StoreUnavailableError
from app.journal import forks
from app.journal.file_lock import LOCK_TIMEOUT_S, FileLock
from app.journal.pools import MOST_KEPT, Pools
from app.journal.prepared import Bound, Prepared, counts_if_first, translated

T = TypeVar("T")

WAL_SAFE_VERSION: Final = (3, 51, 3)

_FAILED: Final = 3
"""libpq's PQTRANS_INERROR."""

_BEGIN: Final = Prepared(text("BEGIN"))
_BEGIN_IMMEDIATE: Final = Prepared(text("BEGIN IMMEDIATE"))


def sqlite_module() -> ModuleType:
    """Return the newest SQLite driver at hand: pysqlite3 where there is a wheel, else the standard library's.

    One process never uses both on one file: each holds its own POSIX locks.
    """
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return importlib.import_module("sqlite3")


class Journal:
    """The database of one installation. May be made, and used, before a fork: a child has connections of its own."""

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._ours = Pools()
        forks.tell(self)
        self._lock = FileLock(f"{self.url.database}.lock") if self.is_sqlite else None

    @property
    def engine(self) -> Engine:
        """The engine of this process for transactions."""
        return self.engines[0]

    @property
    def engines(self) -> tuple[Engine, ...]:
        """`engine`, and on PostgreSQL that of statements that are one each. A forked child gets its own.

        Raises:
            StoreUnavailableError: there is no folder for SQLite's file, or this process must not open it.
        """
        return self._opened(self._ours).engines

    def _opened(self, ours: Pools) -> Pools:
        if not ours.engines:
            with ours.opening:  # several threads that ask for the first time get the same ones
                if not ours.engines:
                    ours.engines = (_sqlite_engine(self.url),) if self.is_sqlite else _postgres_engines(self.url)
        return ours

    def _connect(self, ours: Pools, at: int) -> Connection:
        engine = self._opened(ours).engines[at]
        with ours.opening if self.is_sqlite else contextlib.nullcontext():
            connection = engine.connect()
            ours.out.add(connection)
        return connection

    def write(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection in a write transaction; commits when the block ends, durable when that returns.

        Raises:
            StoreUnavailableError: the database cannot be reached, is locked for too long, or the answer of the commit
                was lost: such a commit counts as not won.
        """
        return self._lent(_BEGIN_IMMEDIATE, self._lock)

    def read(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection for reading: a consistent view on SQLite, statement by statement on PostgreSQL.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        return self._lent(_BEGIN)

    @contextlib.contextmanager
    def moment(self) -> Iterator[Connection]:
        """Yield a connection that reads the journal as it stands at one moment, on either database.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        with self.read() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection

    def look(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection for single prepared statements, each a view of its own: begins no transaction at all.

        On PostgreSQL that saves two round trips.

        Raises:
            StoreUnavailableError: the database cannot be reached.
        """
        return self._lent(None)

    def make(self, change: Callable[[Connection], T], *, kept_open: bool = False) -> T:
        """Run `change` in a transaction of its own, or of its own and others'; on disk when this returns.

        It writes by one call of `counts_if_first`, and begins with the turn of SQLite's one writer: whatever decides is
        best read in it, and the rest done before. What several threads want there at the same time goes in one commit
        (`Together`): so it may be run by another thread, and twice, the first time without effect, and it must not go
        to the journal by itself. On PostgreSQL the call is all of the transaction: one statement, and one round trip
        instead of three.

        Args:
            change: Run with the connection; what it returns is returned.
            kept_open: It is to have a transaction for itself, on either database, which is open until it has returned:
                for who wants to break it off behind its statements.

        Raises:
            StoreUnavailableError: as `write`; on PostgreSQL `change` raises it.
        """
        if self.is_sqlite and not kept_open:
            return self._ours.together.make(change, self.write)
        with self.write() if kept_open else self.look() as connection:
            return change(connection)

    def at_once(self, first: Bound, *also: Bound) -> list[int] | None:
        """Make changes as `make` and `counts_if_first` do, where nothing else decides about them.

        Raises:
            StoreUnavailableError: as `write`.
        """
        return self.make(lambda connection: counts_if_first(connection, first, *also))

    @contextlib.contextmanager
    def _lent(self, begin: Prepared | None, lock: "FileLock | None" = None) -> Iterator[Connection]:
        """Lend a connection in a transaction, or without one. If anything fails under it, it is not lent again."""
        ours = self._ours
        held = None if lock is None else lock.take()
        try:
            # SQLite's driver begins no transaction by itself; psycopg does with whatever it is given, unless told.
            kept = ours.kept if begin is not None or self.is_sqlite else ours.looking
            try:
                connection = kept.pop()
            except IndexError:
                connection = self._connect(ours, 0 if begin is not None else -1)
            try:
                if begin is not None and self.is_sqlite:
                    begin.count(connection)
                driver: Any = connection.connection.driver_connection
                yield connection
                if begin is not None:
                    self._commit(connection, driver)
                else:
                    _check_that_none_began(connection)
            except BaseException:
                ours.close(connection)  # which rolls back
                raise
        except DBAPIError as error:
            if error.connection_invalidated:
                ours.let_go()  # the server has gone away, and each of the others would fail once
            if not _is_absence(error):
                raise
            raise StoreUnavailableError(f"journal: {error.orig}") from error
        finally:
            if lock is not None and held is not None:
                lock.give(held)
        if len(kept) < MOST_KEPT:
            kept.append(connection)
        else:
            ours.close(connection)

    def _commit(self, connection: Connection, driver: Any) -> None:
        """Commit on the driver, unless SQLAlchemy ran something and takes the transaction for its own.

        An error that nobody has passed on may have ended the transaction: SQLAlchemy then connects anew and goes on
        with the rest, PostgreSQL answers a commit and rolls back, and SQLite has nothing left to commit.
        """
        if connection.invalidated or connection.connection.driver_connection is not driver or self._is_lost(driver):
            raise StoreUnavailableError("journal: the transaction was lost under way, and is not committed")
        if connection.in_transaction():
            connection.commit()
            return
        try:
            connection.connection.commit()
        except Exception as error:  # whatever the driver raises: it goes on, as SQLAlchemy would have raised it
            raise translated(connection, error, "COMMIT") from error

    def _is_lost(self, driver: Any) -> bool:
        return not driver.in_transaction if self.is_sqlite else driver.pgconn.transaction_status == _FAILED

    def close(self) -> None:
        """Close all connections that no thread uses."""
        self._ours.let_go()

    def before_fork(self) -> None:
        """Close what SQLite has open, and open nothing until the fork is over: a child must not have it."""
        if self.is_sqlite:
            self._ours.opening.acquire()
            self._ours.is_unused = self._ours.let_go() == 0

    def after_fork(self) -> None:
        """Go on; what is needed is opened again."""
        if self.is_sqlite:
            self._ours.is_unused = False
            forks.release(self._ours.opening)

    def in_child(self) -> None:
        """Begin with nothing open."""
        parents = self._ours
        if self.is_sqlite and parents.engines and not parents.is_unused:
            forks.is_torn(Path(self.url.database or ""))
        self._ours = Pools(of_parent=parents)


def _check_that_none_began(connection: Connection) -> None:
    if connection.in_transaction():
        raise InvariantViolatedError("a statement under `look` was not a prepared one, and began a transaction")


def _is_absence(error: DBAPIError) -> bool:
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _sqlite_engine(url: URL) -> Engine:
    forks.check_is_whole(Path(url.database or ""))
    module = sqlite_module()
    version: tuple[int, ...] = module.sqlite_version_info
    journal_mode = "WAL" if version >= WAL_SAFE_VERSION else "DELETE"
    folder = Path(url.database or "").parent
    if not folder.is_dir():
        raise StoreUnavailableError(f"journal: there is no folder {folder}; create it, or correct DATABASE_URL")
    engine = create_engine(
        url,
        module=module,
        poolclass=NullPool,
        connect_args={"timeout": LOCK_TIMEOUT_S, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        _set_journal_mode(cursor, journal_mode, module.OperationalError)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver is in autocommit mode, so that only one of us begins; who writes takes the lock at once.
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            _BEGIN_IMMEDIATE.count(connection)

    return engine


def _set_journal_mode(cursor: Any, mode: str, locked: type[Exception]) -> None:
    """Set it unless it is set. Several that open a new file at once find it locked, and SQLite does not wait then."""
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while cursor.execute("PRAGMA journal_mode").fetchone()[0].upper() != mode:
        try:
            cursor.execute(f"PRAGMA journal_mode={mode}")
        except locked:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.005)


def _postgres_engines(url: URL) -> tuple[Engine, Engine]:
    # synchronous_commit is set here because a server-wide "off" would make DISPATCHED a promise on water.
    # A process that is stopped inside a transaction must not hold its row locks for ever: its commit fails, which
    # counts as not won.
    options = (
        "-c synchronous_commit=on -c lock_timeout=10s -c statement_timeout=30s -c timezone=UTC "
        "-c idle_in_transaction_session_timeout=10s -c tcp_user_timeout=10s"
    )
    # Statements that are one each are prepared, and each finds its rows by an index: one plan will do, whatever the
    # values and however full the tables. Left to itself, the server plans by what the tables held when it was first
    # asked. It may read them from end to end then, or take planning anew each time, longer than the work, for cheaper.
    # Compiling a plan (jit) takes a hundred times as long as any of them, and starting processes for it does too. What
    # is rare is a word of the statement (`sql.word`): of a parameter the one plan knows nothing.
    planned = (
        f"{options} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off "
        "-c max_parallel_workers_per_gather=0"
    )
    return _postgres_engine(url, options), _postgres_engine(url, planned, isolation_level="AUTOCOMMIT")


def _postgres_engine(url: URL, options: str, **more: Any) -> Engine:
    return create_engine(
        url, poolclass=NullPool,
        connect_args={"connect_timeout": 5, "options": options}, **more,
    )  # fmt: skip
