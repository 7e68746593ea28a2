"""The double-entry ledger: transactions whose lines sum to zero per asset, each of them written once.

| account            | holds                                                                                    |
| ------------------ | ---------------------------------------------------------------------------------------- |
| `wallet:{venue}`   | what the exchange keeps for us: compared with its wallet balances to the last digit      |
| `position:usdm`    | futures contracts held, as assets (`BTCUSDT.PERP`): the ledger alone proves the position |
| `market:{venue}`   | the other side of every trade                                                            |
| `realized_pnl:usdm`| where realized profit comes from, and loss goes to                                       |
| `fees:{venue}`     | commissions                                                                              |
| `external`         | the other side of every line of a trade that no intent of ours caused                    |
| `opening`          | the other side of what was there when the venue was opened                               |

The sign is that of the holder: a wallet that grows has a positive amount, and its counter-accounts mirror it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, select

from app.books.assets import Assets, AssetsOf, assets_of, contract
from app.books.fills import Fill
from app.books.sql import add_to_sums, insert_all, insert_new
from app.intents import Entry
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.outcome import Venue
from app.journal import schema
from app.money import EXACT, ZERO, plain, wire

EXTERNAL: Final = "external"
OPENING: Final = "opening"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a transaction; `amount` is signed and never zero when posted."""

    account: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Lines that sum to zero per asset. `id` is unique for ever, `key` the intent behind it, None for none."""

    id: str
    kind: str
    description: str
    key: str | None
    time_ms: int
    lines: tuple[Line, ...]


def wallet(venue: str) -> str:
    """Return the account of what the exchange keeps for us."""
    return f"wallet:{venue}"


def held_contracts(venue: str) -> str:
    """Return the account of the futures contracts that we hold."""
    return f"position:{venue}"


def trade_transaction_id(venue: str, symbol: str, trade_id: int) -> str:
    """Return the one id under which a trade can be posted."""
    return f"trade:{venue}:{symbol}:{trade_id}"


def pair(source: str, target: str, asset: str, amount: Decimal) -> tuple[Line, ...]:
    """Return the two lines that move `amount` of `asset` from `source` to `target`; none for zero."""
    if not amount:
        return ()
    return (
        Line(account=target, asset=asset, amount=amount),
        Line(account=source, asset=asset, amount=amount.copy_negate()),
    )


def check_balanced(transaction: Transaction) -> None:
    """Refuse a transaction that would make or destroy anything.

    Raises:
        InvariantViolatedError: its lines do not sum to zero in every asset, or there are none.
    """
    sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    for line in transaction.lines:
        sums[line.asset] = EXACT.add(sums[line.asset], line.amount)
    rest = {asset: amount for asset, amount in sums.items() if amount}
    if rest or not transaction.lines:
        off = ", ".join(f"{plain(amount)} {asset}" for asset, amount in sorted(rest.items()))
        raise InvariantViolatedError(f"transaction {transaction.id} does not sum to zero: {off or 'it has no lines'}")


def post(connection: Connection, transactions: Iterable[Transaction], *, now_ms: int) -> set[str]:
    """Write those of `transactions` whose id is new, their lines and the running balances; return the new ids.

    Raises:
        InvariantViolatedError: one of them does not sum to zero; nothing of them is written.
    """
    wanted = {transaction.id: transaction for transaction in transactions}
    for transaction in wanted.values():
        check_balanced(transaction)
    rows = [
        {
            "id": each.id,
            "kind": each.kind,
            "description": each.description,
            "key": each.key,
            "time_ms": each.time_ms,
            "posted_at_ms": now_ms,
        }
        for _, each in sorted(wanted.items())
    ]
    new = {row_id for (row_id,) in insert_new(connection, schema.transactions, rows, schema.transactions.c.id)}
    lines = [(name, number, line) for name in sorted(new) for number, line in enumerate(wanted[name].lines, start=1)]
    insert_all(
        connection,
        schema.postings,
        [
            {
                "transaction_id": name,
                "line": number,
                "account": line.account,
                "asset": line.asset,
                "amount": line.amount,
            }
            for name, number, line in lines
        ],
    )
    sums: defaultdict[tuple[str, ...], Decimal] = defaultdict(lambda: ZERO)
    for _, _, line in lines:
        at = (line.account, line.asset)
        sums[at] = EXACT.add(sums[at], line.amount)
    add_to_sums(connection, schema.ledger_balances, {at: {"amount": amount} for at, amount in sums.items()})
    return new


def post_trades(
    connection: Connection, fills: Sequence[Fill], *, now_ms: int, assets: AssetsOf = assets_of
) -> set[str]:
    """Post each of `fills` once, under its trade's own id; return the ids of the transactions that are new.

    A trade that was posted as external and has become ours since gets a second transaction, `adopt:…`, that moves the
    other side of every line from `external` to where it belongs. Nothing that is posted is ever changed.
    """
    transactions = {}
    for fill in fills:
        transaction = trade_transaction(fill, assets(fill.trade.venue, fill.trade.symbol))
        transactions[transaction.id] = (fill, transaction)
    new = post(connection, [transaction for _, transaction in transactions.values()], now_ms=now_ms)
    met = [name for name in transactions if name not in new and not transactions[name][0].is_external]
    if not met:
        return new
    c = schema.transactions.c
    external = connection.execute(select(c.id).where(c.id.in_(sorted(met)), c.key.is_(None))).scalars().all()
    adopted = [_adoption(transactions[name][1]) for name in external]
    return new | post(connection, adopted, now_ms=now_ms)


def post_entries(
    connection: Connection, *, key: str, description: str, entries: Sequence[Entry], time_ms: int, now_ms: int
) -> bool:
    """Post the transaction of a ledger intent once; return whether it is new.

    Raises:
        InvariantViolatedError: the entries do not sum to zero per asset.
    """
    transaction = Transaction(
        id=f"intent:{key}",
        kind="entries",
        description=description,
        key=key,
        time_ms=time_ms,
        lines=tuple(Line(account=entry.account, asset=entry.asset, amount=entry.amount) for entry in entries),
    )
    return bool(post(connection, [transaction], now_ms=now_ms))


def trade_transaction(fill: Fill, assets: Assets) -> Transaction:
    """Return the transaction of one trade. Its counter-accounts are all `external` if it is not ours."""
    trade = fill.trade
    venue = str(trade.venue)
    own, is_buy = wallet(venue), trade.side == "BUY"
    market, fees, profit = (
        (EXTERNAL, EXTERNAL, EXTERNAL)
        if fill.is_external
        else (f"market:{venue}", f"fees:{venue}", f"realized_pnl:{venue}")
    )
    bought = trade.quantity if is_buy else trade.quantity.copy_negate()
    if trade.venue is Venue.USDM:
        legs = pair(market, held_contracts(venue), contract(trade.symbol), bought)
        legs += pair(profit, own, assets.quote, trade.realized_pnl)
    else:
        paid = EXACT.multiply(trade.price, bought)
        legs = pair(market, own, assets.base, bought) + pair(own, market, assets.quote, paid)
    legs += pair(own, fees, trade.commission_asset, trade.commission)
    words = f"{trade.side} {wire(trade.quantity)} {trade.symbol} at {wire(trade.price)}, order {trade.order_id}"
    return Transaction(
        id=trade_transaction_id(venue, trade.symbol, trade.trade_id),
        kind="trade",
        description=f"{words}, external" if fill.is_external else words,
        key=fill.key,
        time_ms=trade.time_ms,
        lines=legs,
    )


def balances(connection: Connection, accounts: Sequence[str]) -> Mapping[tuple[str, str], Decimal]:
    """Return (account, asset) -> the running balance, for these accounts."""
    c = schema.ledger_balances.c
    rows = connection.execute(select(c.account, c.asset, c.amount).where(c.account.in_(accounts)))
    return {(row[0], row[1]): row[2] for row in rows}


def _adoption(transaction: Transaction) -> Transaction:
    ours = {wallet("usdm"), wallet("spot"), held_contracts("usdm")}
    moved = [line for line in transaction.lines if line.account not in ours]
    back = [replace(line, account=EXTERNAL, amount=line.amount.copy_negate()) for line in moved]
    return replace(
        transaction,
        id=f"adopt:{transaction.id}",
        kind="adoption",
        description=f"{transaction.description}: was external, is ours",
        lines=(*moved, *back),
    )
