"""Verifies the seals of attempts: what was changed, deleted or slipped in among what is sealed is named.

Read in pages, each a view of one moment: work goes on meanwhile, and neither memory nor a transaction grows with the
history. That the trail itself is whole is `audit.verify`'s to say.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, and_, select

from app.journal import archive, schema
from app.journal.attempt_seals import (
    ATTEMPT_COLUMNS,
    CONTENT,
    FORM,
    INTENT_COLUMNS,
    LATE_MS,
    SEALED,
    batch_digest,
    digest,
)
from app.journal.attempts import REOPENED
from app.journal.engine import Journal
from app.journal.sql import MAX_ROWS_PER_STATEMENT

SEALS_PER_PAGE: Final = 8
INTENTS_PER_PAGE: Final = 2_000
MAX_PROBLEMS: Final = 1_000
"""So many are named; of more there is a count."""

_A, _I, _R, _T = schema.attempts, schema.intents, schema.attempt_seals, schema.audit


@dataclass(slots=True, kw_only=True)
class SealReport:
    """What was found. `problems`: what is wrong with which attempt; empty if nothing is."""

    problems: list[str] = field(default_factory=list)
    more_problems: int = 0
    seals: int = 0
    sealed: int = 0
    """Attempts that a seal covers."""
    unsealed: int = 0
    """Settled attempts that none covers yet."""
    late: int = 0
    """Of these, those that settled more than `LATE_MS` ago."""
    oldest_unsealed_ms: int | None = None

    def tell(self, problem: str) -> None:
        """Add a problem, or count it if there are very many."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1


def verify(journal: Journal, *, now_ms: int) -> SealReport:
    """Compare every sealed attempt with its seal, and every seal with the trail.

    Raises:
        StoreUnavailableError: the journal does not answer.
    """
    report = SealReport()
    _verify_seals(journal, report)
    _verify_attempts(journal, report, now_ms)
    return report


def _verify_seals(journal: Journal, report: SealReport) -> None:
    after, more = 0, True
    while more:
        with journal.moment() as connection:
            page = _seals(connection, after)
            more = len(page) == SEALS_PER_PAGE
            until = page[-1]["seq"] if more else None
            by_seal = {
                seal: _with_archive(connection, list(group)) for seal, group in _records(connection, after, until)
            }
            reopened = _reopened(connection, [one for group in by_seal.values() for one in group if _is_old(one)])
        for entry in page:
            report.seals += 1
            _verify_seal(entry, by_seal.get(entry["seq"], []), report)
        for seal in by_seal.keys() - {entry["seq"] for entry in page}:
            report.tell(f"row {seal} of the trail seals nothing, yet {_count(by_seal[seal])} named as sealed by it")
        for record in itertools.chain.from_iterable(by_seal.values()):
            _verify_record(record, reopened, report)
        after = until or after


def _seals(connection: Connection, after: int) -> Sequence[Mapping[str, Any]]:
    query = select(_T.c.seq, _T.c.detail).where(_T.c.seq > after, _T.c.action == SEALED)
    return [dict(row) for row in connection.execute(query.order_by(_T.c.seq).limit(SEALS_PER_PAGE)).mappings()]


def _records(
    connection: Connection, after: int, until: int | None
) -> Iterator[tuple[int, Iterator[Mapping[str, Any]]]]:
    """Yield the records of each seal in their order, with what has become of their attempts."""
    query = (
        select(
            _R.c.seal, _R.c.position, _R.c.key.label("of_key"), _R.c.attempt.label("of_attempt"), _R.c.digest,
            _A.c.seal.label("sealed_by"), *CONTENT,
        )
        .join_from(_R, _A, and_(_A.c.key == _R.c.key, _A.c.attempt == _R.c.attempt), isouter=True)
        .join(_I, _I.c.key == _R.c.key, isouter=True)
        .where(_R.c.seal > after)
    )  # fmt: skip
    if until is not None:
        query = query.where(_R.c.seal <= until)
    rows = connection.execute(query.order_by(_R.c.seal, _R.c.position)).mappings()
    return itertools.groupby((dict(row) for row in rows), key=lambda row: int(row["seal"]))


def _with_archive(connection: Connection, records: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return records with what the archive has of those whose attempts have moved there."""
    moved = sorted({record["of_key"] for record in records if record["content"] == ""})
    archived = archive.of_keys(connection, moved, is_forgiving=True)
    attempts = {(key, row["attempt"]): row for key, found in archived.items() for row in found.rows["attempts"]}
    filled: list[Mapping[str, Any]] = []
    for record in records:
        row = attempts.get((record["of_key"], record["of_attempt"]))
        if row is None:
            filled.append(record)
        else:
            content = archived[record["of_key"]].content
            of_intent = {name: record[name] for name in INTENT_COLUMNS}
            sealed = {name: row[name] for name in ATTEMPT_COLUMNS}
            filled.append({**record, **sealed, **of_intent, "content": content, "sealed_by": row["seal"]})
    return filled


def _verify_seal(entry: Mapping[str, Any], records: Sequence[Mapping[str, Any]], report: SealReport) -> None:
    name = f"the seal in row {entry['seq']} of the trail"
    try:
        detail = json.loads(entry["detail"])
        count, hash_, form = int(detail["attempts"]), str(detail["sha256"]), int(detail["form"])
    except (ValueError, KeyError, TypeError):
        report.tell(f"{name} cannot be read")
        return
    if form != FORM:
        report.tell(f"{name} has form {form}, which this version does not know: install a newer one")
        return
    held = [{**one, "key": one["of_key"], "attempt": one["of_attempt"]} for one in records]
    if batch_digest(held) == hash_:
        return
    report.tell(f"{name} does not hold what it sealed: {len(held)} of {count} records are there, or one was changed")
    for place in sorted(set(range(1, count + 1)) - {one["position"] for one in held})[:MAX_PROBLEMS]:
        before = next((one for one in reversed(held) if one["position"] < place), None)
        behind = "at its beginning" if before is None else f"behind {_name(before['key'], before['attempt'])}"
        report.tell(f"{name}: record {place} is missing, {behind}")


def _verify_record(record: Mapping[str, Any], reopened: Mapping[Any, list[int]], report: SealReport) -> None:
    key, attempt, seal, now_by = record["of_key"], record["of_attempt"], record["seal"], record["sealed_by"]
    name = _name(key, attempt)
    if record["key"] is None:
        report.tell(f"{name} was deleted: row {seal} of the trail sealed it")
    elif record["content"] is None:
        report.tell(f"{name}: its intent was deleted; row {seal} of the trail sealed it")
    elif now_by == seal:
        if digest(record) != record["digest"]:
            report.tell(f"{name} was changed after row {seal} of the trail sealed it")
    elif any(seal < seq and (now_by is None or seq < now_by) for seq in reopened.get((key, attempt), [])):
        return
    elif now_by is None:
        was = "" if digest(record) == record["digest"] else " and it was changed"
        report.tell(f"{name} is not marked as sealed any more{was}: row {seal} of the trail sealed it")
    else:
        report.tell(f"{name} was sealed by row {seal} and by row {now_by} of the trail, and nothing opened it between")


def _is_old(record: Mapping[str, Any]) -> bool:
    return record["key"] is not None and record["sealed_by"] != record["seal"]


def _reopened(connection: Connection, records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[int]]:
    """Return in which rows of the trail these attempts were opened again."""
    found: dict[tuple[str, int], list[int]] = {}
    if not records:
        return found
    keys = sorted({record["of_key"] for record in records})
    query = select(_T.c.seq, _T.c.subject, _T.c.detail).where(_T.c.action == REOPENED, _T.c.subject.in_(keys))
    for row in connection.execute(query):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a row that cannot be read opens nothing
            for number in json.loads(row.detail)["attempts"]:
                found.setdefault((row.subject, number), []).append(row.seq)
    return found


def _verify_attempts(journal: Journal, report: SealReport, now_ms: int) -> None:
    """Count what is sealed and what is not, and find what no seal and no intent knows of."""
    after = ""
    while True:
        with journal.moment() as connection:
            rows = _attempts(connection, after)
        if not rows:
            return
        for (key, dispatched), group in itertools.groupby(rows, key=lambda row: (row["key"], row["dispatched"])):
            held = [row for row in group if row["attempt"] is not None]
            for row in held:
                _count_attempt(row, report, now_ms)
            numbers = [row["attempt"] for row in held]
            for number in sorted({number for number in numbers if numbers.count(number) > 1}):
                report.tell(f"{_name(key, number)} is there beside the archived one")
            _verify_numbers(key, dispatched, set(numbers), report)
        after = rows[-1]["key"]


def _verify_numbers(key: str, dispatched: int, numbers: AbstractSet[int], report: SealReport) -> None:
    """Tell which attempts are there without their dispatch, and which dispatches without their attempt."""
    words = f"its intent was dispatched {dispatched} times"
    for number in sorted(number for number in numbers if not 1 <= number <= dispatched):
        report.tell(f"{_name(key, number)} was slipped in: {words}")
    for number in itertools.islice((one for one in range(1, dispatched + 1) if one not in numbers), MAX_PROBLEMS):
        report.tell(f"{_name(key, number)} is missing: {words}")


def _attempts(connection: Connection, after: str) -> Sequence[Mapping[str, Any]]:
    page = (
        select(_I.c.key, _I.c.attempt.label("dispatched"), (_I.c.content == "").label("is_archived"))
        .where(_I.c.key > after)
        .order_by(_I.c.key)
        .limit(INTENTS_PER_PAGE)
        .subquery()
    )
    query = (
        select(
            page.c.key, page.c.dispatched, page.c.is_archived, _A.c.attempt, _A.c.seal, _A.c.outcome,
            _A.c.settled_at_ms, _R.c.digest,
        )
        .join_from(page, _A, _A.c.key == page.c.key, isouter=True)
        .join(
            _R, and_(_R.c.key == _A.c.key, _R.c.attempt == _A.c.attempt, _R.c.seal == _A.c.seal), isouter=True,
        )
        .order_by(page.c.key, _A.c.attempt)
    )  # fmt: skip
    rows = [dict(row) for row in connection.execute(query).mappings()]
    archived = _archived_attempts(connection, {row["key"]: row["dispatched"] for row in rows if row["is_archived"]})
    return sorted([*rows, *archived], key=lambda row: (row["key"], row["attempt"] or 0)) if archived else rows


def _archived_attempts(connection: Connection, dispatched: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the attempts of archived intents, with the digests of their seals, as a page has those of others."""
    keys = sorted(dispatched)
    digests: dict[tuple[str, int, int], str] = {}
    for start in range(0, len(keys), MAX_ROWS_PER_STATEMENT):
        query = select(_R.c.key, _R.c.attempt, _R.c.seal, _R.c.digest)
        for row in connection.execute(query.where(_R.c.key.in_(keys[start : start + MAX_ROWS_PER_STATEMENT]))):
            digests[row.key, row.attempt, row.seal] = row.digest
    return [
        {
            "key": key, "dispatched": dispatched[key], "attempt": row["attempt"], "seal": row["seal"],
            "outcome": row["outcome"], "settled_at_ms": row["settled_at_ms"],
            "digest": digests.get((key, row["attempt"], row["seal"])),
        }
        for key, found in archive.of_keys(connection, keys, is_forgiving=True).items()
        for row in found.rows["attempts"]
    ]  # fmt: skip


def _count_attempt(row: Mapping[str, Any], report: SealReport, now_ms: int) -> None:
    if row["seal"] is not None:
        if row["digest"] is None:
            name = _name(row["key"], row["attempt"])
            report.tell(f"{name} says that row {row['seal']} of the trail sealed it, which has no record of it")
        else:
            report.sealed += 1
    elif row["outcome"] is not None:
        report.unsealed += 1
        settled_ms = row["settled_at_ms"]
        if not isinstance(settled_ms, int) or settled_ms < now_ms - LATE_MS:
            report.late += 1
        if isinstance(settled_ms, int):
            report.oldest_unsealed_ms = min(settled_ms, report.oldest_unsealed_ms or settled_ms)


def _name(key: str, attempt: int) -> str:
    return f"attempt {attempt} of {key}"


def _count(records: Sequence[object]) -> str:
    return "1 attempt is" if len(records) == 1 else f"{len(records)} attempts are"
