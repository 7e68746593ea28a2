"""Finished orders by the million, straight into the tables: what a journal holds after months of work.

Each has an attempt, a proof, a trade and what follows from it in every book; one in twenty was retried. Keys and ids
grow with time, so that writing is quick; trades and orders have ids below zero, so that they are nobody else's.
"""
# ruff: noqa: S608 - nothing of these statements comes from outside

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

FIRST: Final = 1_000_000
RETRIED_EVERY: Final = 20
SPREAD_MS: Final = 30 * 24 * 3_600_000
"""Over how much time they are spread, up to now."""

FOLLOWUPS: Final = ("post_ledger",)
"""One of three: they are many rows, and asked for by their keys only."""

_NUMBERS: Final = """
WITH RECURSIVE n(i) AS (
  SELECT CAST({first} AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {last}
)
"""
_AT: Final = "{start} + (i - {first}) * {step}"
_TRIES: Final = f"CASE WHEN i / {RETRIED_EVERY} * {RETRIED_EVERY} = i THEN 2 ELSE 1 END"
_ID: Final = f"i - {10 * FIRST}"
_PLACE: Final = "'main', 'usdm', 'BTCUSDT'"
_CONTENT: Final = (
    """'{{"key":"i' || i || '","order_type":"MARKET","price":null,"quantity":"0.010","reduce_only":false,"""
    """"side":"BUY","stop_price":null,"strategy":"sma","symbol":"BTCUSDT","type":"order","venue":"usdm"}}'"""
)


def statements() -> Iterator[str]:
    """Yield what writes orders {first} to {last}, one every {step} ms from {start} on."""
    yield f"""{_NUMBERS}
INSERT INTO intents (key, type, state, attempt, fence, queue, venue, symbol, content, content_hash, client_order_id,
  exchange_order_id, opens_risk, executed_quantity, average_price, exchange_status, created_at_ms, updated_at_ms,
  finished_at_ms, booked_at_ms)
SELECT 'i' || i, 'order', 'FILLED', {_TRIES}, 1, 'orders', 'usdm', 'BTCUSDT', {_CONTENT}, 'h' || i, 'fo-' || i, {_ID},
  TRUE, {_exact("0.010")}, {_exact("20000")}, 'FILLED', {_AT}, {_AT}, {_AT}, {_AT} FROM n"""
    for number in (1, 2):
        outcome = "'ACCEPTED'" if number == 2 else f"CASE WHEN {_TRIES} = 1 THEN 'ACCEPTED' ELSE 'REFUSED' END"
        yield f"""{_NUMBERS}
INSERT INTO attempts (key, attempt, owner, fence, client_order_id, timestamp_ms, recv_window_ms, payload_hash,
  config_hash, dispatched_at_ms, outcome, settled_at_ms, settled_by, answer, seal)
SELECT 'i' || i, {number}, 'worker', 1, 'fo-' || i, {_AT}, 3000, 'payload', 'config', {_AT} + {number}, {outcome},
  {_AT} + {number}, 'dispatch', 'FILLED 0.010', 1 FROM n WHERE {_TRIES} >= {number}"""
    yield f"""{_NUMBERS}
INSERT INTO attempt_seals (key, attempt, seal, position, digest)
SELECT 'i' || i, 1, -1, i, 'digest of i' || i FROM n"""
    yield f"""{_NUMBERS}
INSERT INTO proofs (key, order_id, status, executed_quantity, source, state_before, recorded_at_ms)
SELECT 'i' || i, {_ID}, 'FILLED', {_exact("0.010")}, 'dispatch', 'DISPATCHED', {_AT} FROM n"""
    yield f"""{_NUMBERS}
INSERT INTO fills (account, venue, symbol, trade_id, order_id, key, side, price, quantity, commission, commission_asset,
  realized_pnl, time_ms, recorded_at_ms)
SELECT {_PLACE}, {_ID}, {_ID}, 'i' || i, 'BUY', {_exact("20000")}, {_exact("0.010")}, {_exact("0.08")}, 'USDT',
  {_exact("0")}, {_AT}, {_AT} FROM n"""
    yield f"""{_NUMBERS}
INSERT INTO position_entries (account, venue, symbol, trade_id, side, price, quantity, realized_pnl, quantity_after,
  entry_price_after)
SELECT {_PLACE}, {_ID}, 'BUY', {_exact("20000")}, {_exact("0.010")}, {_exact("0")}, {_exact("0.010")},
  {_exact("20000")} FROM n"""
    yield f"""{_NUMBERS}
INSERT INTO pnl_entries (account, venue, symbol, trade_id, day, asset, realized, commission, commission_asset)
SELECT {_PLACE}, {_ID}, '2026-01-01', 'USDT', {_exact("0")}, {_exact("0.08")}, 'USDT' FROM n"""
    yield f"""{_NUMBERS}
INSERT INTO transactions (id, kind, description, key, time_ms, posted_at_ms)
SELECT 'trade:usdm:BTCUSDT:' || ({_ID}), 'trade', 'BUY 0.010', 'i' || i, {_AT}, {_AT} FROM n"""
    for line, account, amount in ((0, "fees", "0.08"), (1, "exchange", "-0.08")):
        yield f"""{_NUMBERS}
INSERT INTO postings (transaction_id, line, account, asset, amount)
SELECT 'trade:usdm:BTCUSDT:' || ({_ID}), {line}, '{account}', 'USDT', {_exact(amount)} FROM n"""
    for kind in FOLLOWUPS:
        yield f"""{_NUMBERS}
INSERT INTO followups (key, kind, queue, intent_key, payload, run_at_ms, created_at_ms, done_at_ms)
SELECT '{kind}:' || i, '{kind}', 'ledger', 'i' || i, '{{{{"trade_ids":[1]}}}}', {_AT}, {_AT}, {_AT} FROM n"""
        yield f"{_NUMBERS} INSERT INTO inbox (key, received_at_ms) SELECT '{kind}:' || i, {_AT} FROM n"


def write(connection: Connection, count: int, *, now_ms: int, first: int = 0, of: int | None = None) -> None:
    """Write orders `first` to `first + count - 1` of `of` (`count` if not given) that were finished by `now_ms`."""
    step_ms = SPREAD_MS // (of or count)
    numbers = {
        "first": FIRST + first, "last": FIRST + first + count - 1, "start": now_ms - SPREAD_MS + first * step_ms,
        "step": step_ms,
    }  # fmt: skip
    exact = "" if connection.dialect.name == "sqlite" else "::numeric"
    for statement in statements():
        connection.execute(text(_escaped(statement.format(**numbers, exact=exact))))


def _escaped(statement: str) -> str:
    return re.sub(r":(?=[a-zA-Z])", r"\:", statement).replace(r":\:numeric", r"\:\:numeric")


def _exact(amount: str) -> str:
    """An exact decimal: text on SQLite, a number on PostgreSQL."""
    return f"'{amount}'{{exact}}"
