"""Who is measured, in which order, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Database = Literal["SQLite", "PostgreSQL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A queue and its way to run a worker.

    In `command`, `{bin}` is the folder of its Python, `{redis}` the address of Redis, `{n}` the number of the worker.
    """

    letter: str
    name: str
    module: str
    command: Sequence[str]
    share: float = 1.0
    """Of the jobs of a run: a slow one gets fewer, so that a run takes everybody about as long."""
    database: Database | None = None
    is_ours: bool = False
    tells_ready: bool = False
    """Whether its worker leaves a file `dbos-ready` once jobs may be enqueued."""
    is_restless: bool = False
    """Whether its idle worker takes processor time that the others would miss: it is stopped between its turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kind with so many worker processes; with none, it is only enqueued into."""

    kind: Kind
    workers: int
    books: bool = False
    """Whether one more process works on the book queues: then an order counts when it is booked."""
    answer_ms: int = 0
    """After how many milliseconds the exchange answers."""

    @property
    def name(self) -> str:
        """How results name it."""
        return f"{self.kind.letter}{self.workers}{'-booked' if self.books else ''}{'-far' if self.answer_ms else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is done in a round."""

    jobs: int
    booked: int = 150
    singly: int = 200
    batch: int = 2000
    paced: tuple[tuple[int, int], ...] = ((20, 60), (100, 200))
    """Orders a second, and how many of them."""
    counted: int = 40
    """Orders whose commits are counted: few enough that SQLite's log of changes is not begun anew meanwhile."""


_RQ: Final = ("{bin}/rq", "worker", "--quiet", "-u", "{redis}")
_SIMPLE: Final = (*_RQ, "-w", "rq.SimpleWorker", "bench")
_CELERY: Final = (
    "{bin}/celery", "-A", "bench.throughput.on_celery", "worker", "--concurrency", "1", "-l", "ERROR",
    "--without-gossip", "--without-mingle", "--without-heartbeat", "-n", "w{n}@%h",
)  # fmt: skip
_HUEY: Final = ("{bin}/huey_consumer", "bench.throughput.on_huey.huey", "-w", "1", "-q")
_DBOS: Final = ("{bin}/python", "-m", "bench.throughput.on_dbos")
_OURS: Final = ("{bin}/fillonce", "worker", "orders")
_UNTHREADED: Final = (*_OURS, "--threads", "1")

STOCK: Final = Kind(letter="a", name="RQ SimpleWorker", module="rq", command=_SIMPLE)
FORKING: Final = Kind(letter="b", name="RQ Worker (forks)", module="rq", command=(*_RQ, "bench"), share=0.3)
CELERY: Final = Kind(letter="c", name="Celery", module="celery", command=_CELERY)
HUEY: Final = Kind(letter="d", name="Huey", module="huey", command=_HUEY)
POWERTOOLS: Final = Kind(letter="e", name="RQ + Powertools idempotency", module="powertools", command=_SIMPLE)
DBOS: Final = Kind(
    letter="f", name="DBOS on PostgreSQL", module="dbos", command=_DBOS, share=0.3, database="PostgreSQL",
    tells_ready=True, is_restless=True,
)  # fmt: skip
ON_SQLITE: Final = Kind(
    letter="g", name="fillonce on SQLite", module="fillonce", command=_OURS, database="SQLite", is_ours=True
)
ON_POSTGRES: Final = Kind(
    letter="h", name="fillonce on PostgreSQL", module="fillonce", command=_OURS, database="PostgreSQL", is_ours=True
)
ONE_ON_SQLITE: Final = Kind(
    letter="i", name="fillonce on SQLite, one thread", module="fillonce", command=_UNTHREADED, database="SQLite",
    is_ours=True,
)  # fmt: skip
ONE_ON_POSTGRES: Final = Kind(
    letter="j", name="fillonce on PostgreSQL, one thread", module="fillonce", command=_UNTHREADED,
    database="PostgreSQL", is_ours=True,
)  # fmt: skip

CORE: Final = (STOCK, ON_SQLITE, ON_POSTGRES, CELERY)
"""Those whose ratios matter most, one right after the other: what slows the machine then slows all of them."""

_OTHERS: Final = (HUEY, POWERTOOLS, FORKING, DBOS)
_ENQUEUED: Final = (STOCK, ON_SQLITE, ON_POSTGRES)
_OURS_BOTH: Final = (ON_SQLITE, ON_POSTGRES)
_ONE_AT_A_TIME: Final = (ONE_ON_SQLITE, ONE_ON_POSTGRES)
_FAR: Final = (*CORE, ONE_ON_SQLITE)

FAR_MS: Final = 10
"""How long an exchange takes that is some network away."""

ENTRIES: Final = (
    *(Entry(kind=kind, workers=1) for kind in CORE),
    *(Entry(kind=kind, workers=1) for kind in _ONE_AT_A_TIME),
    *(Entry(kind=kind, workers=2) for kind in CORE),
    *(Entry(kind=kind, workers=1, answer_ms=FAR_MS) for kind in _FAR),
    *(Entry(kind=kind, workers=1) for kind in _OTHERS),
    *(Entry(kind=kind, workers=1, books=True) for kind in _OURS_BOTH),
    *(Entry(kind=kind, workers=0) for kind in _ENQUEUED),
)


def chosen(letters: str, workers: str) -> list[Entry]:
    """Return the entries of these letters and numbers of workers; all of them for an empty string."""
    return [
        entry
        for entry in ENTRIES
        if (not letters or entry.kind.letter in letters) and (not workers or str(entry.workers) in workers)
    ]


def may_begin(*, now_s: float, until_s: float, rounds_s: Sequence[float]) -> bool:
    """Return whether another round will end in time, if it takes as long as the longest; the first one always may."""
    return not rounds_s or now_s + max(rounds_s) <= until_s
