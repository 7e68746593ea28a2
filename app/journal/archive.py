"""What is kept of an intent that is archived, and how it comes back.

The row of the intent stays in `intents`, without its content: it refuses the key for ever, and maps every trade and
order that the exchange may still tell of. Content, attempts, proofs and follow-ups are packed into one row of
`archive`. Whoever takes the intent to change it (`intents.find` with `lock`) gets all of it back into the tables.
"""

import contextlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select, update

from app.job_safety.errors import InvariantViolatedError
from app.journal import schema
from app.journal.rows import AttemptRow, IntentRow, attempt_row
from app.journal.sql import MAX_ROWS_PER_STATEMENT, insert_ignore
from app.journal.types import ExactDecimal
from app.money import wire

FORM: Final = 1
"""The form of a body. Another one gets another number, so that old ones stay readable."""

_WORDS: Final = (
    b'{"key":"","kind":"post_pnl","queue":"pnl","payload":"{\\"account\\": \\"main\\", \\"base\\": \\"BTC\\", '
    b'\\"quote\\": \\"USDT\\", '
    b'\\"symbol\\": \\"BTCUSDT\\", \\"trade_ids\\": [1], \\"venue\\": \\"usdm\\"}","tries":0,"last_error":"",'
    b'"post_ledger:usdm:BTCUSDT:1-1:","kind":"post_ledger","queue":"ledger","fetch_fills:","verify_single:","positions"'
    b'"rule":"","http_status":400,"code":-2013,"failure_class":"","retry_delay_ms":1000,"evidence":"","unknown_at_ms":1'
    b'"outcome":"REFUSED","NOT_SENT","ABSENT","settled_by":"reconcile","settled_by":"own_answer","cancel","order_key":'
    b'{"form":1,"content":"{\\"key\\":\\"","\\"order_type\\":\\"LIMIT\\",\\"order_type\\":\\"MARKET\\",\\"price\\":null,'
    b'\\"quantity\\":\\"0.01\\",\\"reduce_only\\":false,\\"side\\":\\"SELL\\",\\"side\\":\\"BUY\\",\\"stop_price\\":null,'
    b'\\"strategy\\":\\"\\",\\"symbol\\":\\"ETHUSDT\\",\\"symbol\\":\\"BTCUSDT\\",\\"time_in_force\\":null,'
    b'\\"type\\":\\"order\\",\\"valid_for_s\\":null,\\"venue\\":\\"spot\\"}","venue\\":\\"usdm\\"}","attempts":[{"key":"",'
    b'"attempt":1,"owner":"worker-orders-","fence":4294967297,"client_order_id":"fo-","timestamp_ms":17,"recv_window_ms":'
    b'3000,"payload_hash":"","config_hash":"","dispatched_at_ms":17,"outcome":"ACCEPTED","settled_at_ms":17,"settled_by":'
    b'"dispatch","answer":"FILLED 0.01","seal":1}],"proofs":[{"id":1,"key":"","order_id":1,"status":"FILLED",'
    b'"executed_quantity":"0.01","source":"dispatch","state_before":"DISPATCHED","recorded_at_ms":17}],"followups":[{"key":'
    b'"","intent_key":"","run_at_ms":17,"tries":0,"created_at_ms":17,"done_at_ms":17}],"inbox":[{"key":"",'
    b'"received_at_ms":17}]}'
)
"""What most bodies say, so that each need not: a dictionary of form 1. It never changes, or nothing could be read."""

Row = Mapping[str, Any]
_A, _I = schema.archive, schema.intents

TABLES: Final[Mapping[str, Table]] = {
    "attempts": schema.attempts,
    "proofs": schema.proofs,
    "followups": schema.followups,
    "inbox": schema.inbox,
}
"""What moves with an intent, in the order in which it can come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """An archived intent's bulk. `rows` by table, in their order."""

    archived_at_ms: int
    file: str | None
    content: str
    rows: Mapping[str, Sequence[Row]]

    def attempts(self) -> list[AttemptRow]:
        """Return its attempts in their order."""
        return [attempt_row(row) for row in self.rows["attempts"]]

    @property
    def place(self) -> str:
        """Where it is, in words."""
        here = "table archive of this journal"
        return here if self.file is None else f"{here}, copy in {self.file}"


def pack(content: str, rows: Mapping[str, Sequence[Row]]) -> bytes:
    """Return the body of an archived intent."""
    full = {name: [{c: v for c, v in row.items() if v is not None} for row in rows[name]] for name in TABLES}
    text = json.dumps({"form": FORM, "content": content, **full}, separators=(",", ":"), default=_plain)
    packer = zlib.compressobj(level=9, zdict=_WORDS)
    return packer.compress(text.encode()) + packer.flush()


def unpack(body: bytes) -> dict[str, Any]:
    """Return what `pack` has packed, as JSON has it.

    Raises:
        ValueError: it is no such body.
    """
    try:
        unpacker = zlib.decompressobj(zdict=_WORDS)
        text = unpacker.decompress(body) + unpacker.flush()
    except zlib.error as error:
        raise ValueError(f"not a body of form {FORM}: {error}") from error
    found: dict[str, Any] = json.loads(text)
    if found["form"] != FORM:
        raise ValueError(f"form {found['form']}, which this version does not know: install a newer one")
    return found


def find(connection: Connection, key: str) -> Archived | None:
    """Return what is archived of an intent; None if it is not."""
    return of_keys(connection, [key]).get(key)


def of_keys(connection: Connection, keys: Sequence[str], *, is_forgiving: bool = False) -> dict[str, Archived]:
    """Return what is archived of these intents, by key.

    Raises:
        InvariantViolatedError: one cannot be read; with `is_forgiving` it is left out instead.
    """
    found: dict[str, Archived] = {}
    for start in range(0, len(keys), MAX_ROWS_PER_STATEMENT):
        query = select(_A).where(_A.c.key.in_(list(keys[start : start + MAX_ROWS_PER_STATEMENT])))
        for row in connection.execute(query).mappings():
            with contextlib.suppress(*((InvariantViolatedError,) if is_forgiving else ())):
                found[row["key"]] = _unpack(dict(row))
    return found


def whole(connection: Connection, row: IntentRow, *, bring_back: bool) -> IntentRow | None:
    """Return `row`, which is archived, with its content; None if the archive does not have it.

    Args:
        connection: A write transaction that holds the row, if it is to come back.
        row: As it was read.
        bring_back: Put everything back into the tables, for whoever is about to change it.

    Raises:
        InvariantViolatedError: it cannot be read.
    """
    archived = find(connection, row.key)
    if archived is None:
        return None
    if bring_back:
        connection.execute(update(_I).where(_I.c.key == row.key).values(content=archived.content))
        for name, table in TABLES.items():
            rows = [_row_of(table, each) for each in archived.rows[name]]
            # Of the rest, something may be there again: whoever booked a late trade needed none of it.
            if rows and table is schema.attempts:
                connection.execute(insert(table), rows)
            else:
                insert_ignore(connection, table, rows)
        connection.execute(delete(_A).where(_A.c.key == row.key))
    return row._replace(content=archived.content)


def _unpack(row: Row) -> Archived:
    try:
        body = unpack(row["body"])
    except ValueError as error:
        raise InvariantViolatedError(
            f"{row['key']}: its archive cannot be read, take it from a backup: {error}"
        ) from error
    return Archived(
        archived_at_ms=row["archived_at_ms"],
        file=row["file"],
        content=body["content"],
        rows={name: [_typed(table, each) for each in body[name]] for name, table in TABLES.items()},
    )


def _typed(table: Table, row: Row) -> dict[str, Any]:
    """Return a row with every column, typed as the table has it."""
    decimals = {column.name for column in table.c if isinstance(column.type, ExactDecimal)}
    return {
        name: Decimal(row[name]) if name in decimals and row.get(name) is not None else row.get(name)
        for name in table.c.keys()  # noqa: SIM118 - a collection of columns iterates over columns
    }


def _row_of(table: Table, row: Row) -> dict[str, Any]:
    """Return a row to insert. What the database numbers itself gets a new number: the old one may be taken by now."""
    return {name: value for name, value in row.items() if not (table is schema.proofs and name == "id")}


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return wire(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
