"""The tables of the journal: the truth. Unique keys here make a double posting impossible whatever the code above does.

Times are milliseconds UTC (`…_ms`). Amounts are `ExactDecimal`. `fence` packs (epoch, n), see `fence.py`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.journal.types import ExactDecimal, Millis

metadata = MetaData()

journal_meta = Table(
    "journal_meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("installation", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("epoch", Integer, nullable=False, server_default="1"),
    # The latched part of the kill switch; the Redis key, a file and the environment may be stricter.
    Column("kill_state", Text, nullable=False, server_default="RUN"),
    Column("kill_epoch", BigInteger, nullable=False, server_default="0"),
    Column("kill_reason", Text, nullable=False, server_default=""),
    Column("created_at_ms", Millis, nullable=False),
    Column("restored_at_ms", Millis),
)

kill_latches = Table(
    # What holds the kill switch, one row per source; journal_meta.kill_state is the strictest of them.
    "kill_latches",
    metadata,
    Column("source", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_ms", Millis, nullable=False),
    # NULL but for a drill: when it is over at the latest, whatever became of its process.
    Column("until_ms", Millis),
    Column("note", Text, nullable=False, server_default="{}"),
)

venues = Table(
    # One row per venue that has been opened: from here on every trade is ours to account for.
    "venues",
    metadata,
    Column("venue", Text, primary_key=True),
    Column("opened_at_ms", Millis, nullable=False),
    Column("income_since_ms", Millis, nullable=False),
)

watermarks = Table(
    # Trades of a symbol up to and including this id belong to the opening entries.
    "watermarks",
    metadata,
    Column("venue", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("trade_id", BigInteger, nullable=False),
    Column("swept_trade_id", BigInteger, nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("key", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("queue", Text, nullable=False),
    Column("venue", Text),
    Column("symbol", Text),
    # Empty once the intent is archived: the text is in the archive then. No intent has an empty content.
    Column("content", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("client_order_id", Text, unique=True),
    Column("exchange_order_id", BigInteger),
    Column("is_algo", Boolean, nullable=False, server_default=text("false")),
    Column("actual_order_id", BigInteger),
    Column("parent_key", Text),
    Column("leg", Text),
    Column("opens_risk", Boolean, nullable=False),
    Column("valid_until_ms", Millis),
    # When the sweeper looks at it again; NULL: nothing moves it by itself.
    Column("run_at_ms", Millis),
    # A worker that gets it earlier (a stray delivery) leaves it alone.
    Column("not_before_ms", Millis, nullable=False, server_default="0"),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("executed_quantity", ExactDecimal),
    Column("average_price", ExactDecimal),
    Column("exchange_status", Text),
    Column("reason", Text),
    Column("rescues", Integer, nullable=False, server_default="0"),
    Column("snoozes", Integer, nullable=False, server_default="0"),
    Column("in_doubt_since_ms", Millis),
    Column("answered_doubt_ms", Millis, nullable=False, server_default="0"),
    Column("watch_until_ms", Millis),
    Column("booked_at_ms", Millis),
    Column("created_at_ms", Millis, nullable=False),
    Column("updated_at_ms", Millis, nullable=False),
    Column("finished_at_ms", Millis),
    Index(
        "intents_due",
        "run_at_ms",
        sqlite_where=text("run_at_ms IS NOT NULL"),
        postgresql_where=text("run_at_ms IS NOT NULL"),
    ),
    Index("intents_by_state", "state", "created_at_ms"),
    Index("intents_by_order", "venue", "symbol", "exchange_order_id"),
    Index(
        "intents_by_actual_order",
        "venue",
        "symbol",
        "actual_order_id",
        sqlite_where=text("actual_order_id IS NOT NULL"),
        postgresql_where=text("actual_order_id IS NOT NULL"),
    ),
    Index(
        "intents_by_parent",
        "parent_key",
        sqlite_where=text("parent_key IS NOT NULL"),
        postgresql_where=text("parent_key IS NOT NULL"),
    ),
    Index("intents_created", "created_at_ms"),
    Index(
        "intents_retried",
        "finished_at_ms",
        sqlite_where=text("attempt > 1 AND finished_at_ms IS NOT NULL"),
        postgresql_where=text("attempt > 1 AND finished_at_ms IS NOT NULL"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("key", Text, ForeignKey("intents.key"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column("timestamp_ms", Millis, nullable=False),
    Column("recv_window_ms", Integer, nullable=False),
    Column("payload_hash", Text, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("dispatched_at_ms", Millis, nullable=False),
    # NULL while nobody knows; NOT_SENT, REFUSED, ACCEPTED by its own answer; ABSENT by evidence.
    Column("outcome", Text),
    Column("settled_at_ms", Millis),
    Column("settled_by", Text),
    # When an answer of the venue left it unknown; a dead worker leaves none.
    Column("unknown_at_ms", Millis),
    Column("failure_class", Text),
    Column("rule", Text),
    Column("http_status", Integer),
    Column("code", Integer),
    Column("answer", Text),
    Column("retry_delay_ms", BigInteger),
    Column("evidence", Text),
    # The row of the audit trail that seals it as it stands; NULL: not settled, or not sealed yet.
    Column("seal", BigInteger),
    Index(
        "attempts_unknown",
        "unknown_at_ms",
        sqlite_where=text("unknown_at_ms IS NOT NULL"),
        postgresql_where=text("unknown_at_ms IS NOT NULL"),
    ),
    Index("attempts_by_time", "dispatched_at_ms", "key", "attempt"),
    Index(
        "attempts_retried",
        "dispatched_at_ms",
        sqlite_where=text("attempt > 1"),
        postgresql_where=text("attempt > 1"),
    ),
    # Holds nothing that is open: the transaction that dispatches does not touch it.
    Index(
        "attempts_unsealed",
        "settled_at_ms",
        sqlite_where=text("seal IS NULL AND outcome IS NOT NULL"),
        postgresql_where=text("seal IS NULL AND outcome IS NOT NULL"),
    ),
)

proofs = Table(
    # Append-only: what the exchange told of an order of ours, at any fence, in any state. Bars every further send.
    "proofs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key", Text, ForeignKey("intents.key"), nullable=False),
    Column("order_id", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("executed_quantity", ExactDecimal, nullable=False),
    Column("source", Text, nullable=False),
    Column("state_before", Text, nullable=False),
    Column("recorded_at_ms", Millis, nullable=False),
    UniqueConstraint("key", "order_id", "status", "executed_quantity"),
)

fills = Table(
    "fills",
    metadata,
    Column("account", Text, primary_key=True),
    Column("venue", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("trade_id", BigInteger, primary_key=True),
    Column("order_id", BigInteger, nullable=False),
    Column("key", Text, ForeignKey("intents.key")),  # NULL: not ours, account `external`
    Column("side", Text, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("commission_asset", Text, nullable=False),
    Column("realized_pnl", ExactDecimal, nullable=False),
    Column("time_ms", Millis, nullable=False),
    Column("recorded_at_ms", Millis, nullable=False),
    Index("fills_by_key", "key"),
    Index("fills_by_order", "venue", "symbol", "order_id"),
)

positions = Table(
    "positions",
    metadata,
    Column("account", Text, primary_key=True),
    Column("venue", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("quantity", ExactDecimal, nullable=False),
    Column("entry_price", ExactDecimal, nullable=False),
    Column("realized_pnl", ExactDecimal, nullable=False),
    Column("last_trade_id", BigInteger, nullable=False),
    Column("updated_at_ms", Millis, nullable=False),
)

position_entries = Table(
    # The effect of one trade on its position; trade id -1 is the opening entry.
    "position_entries",
    metadata,
    Column("account", Text, primary_key=True),
    Column("venue", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("trade_id", BigInteger, primary_key=True),
    Column("side", Text, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("quantity", ExactDecimal, nullable=False),
    Column("realized_pnl", ExactDecimal, nullable=False),
    Column("quantity_after", ExactDecimal, nullable=False),
    Column("entry_price_after", ExactDecimal, nullable=False),
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Text, primary_key=True),  # trade:usdm:BTCUSDT:17, income:…, opening:…, intent:…
    Column("kind", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("key", Text),
    Column("time_ms", Millis, nullable=False),
    Column("posted_at_ms", Millis, nullable=False),
    Index("transactions_posted", "posted_at_ms"),
    Index("transactions_by_key", "key"),
)

postings = Table(
    "postings",
    metadata,
    Column("transaction_id", Text, ForeignKey("transactions.id"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", ExactDecimal, nullable=False),
)

ledger_balances = Table(
    # The running sum of postings, written in the same transaction; `ledger check` proves it.
    "ledger_balances",
    metadata,
    Column("account", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("amount", ExactDecimal, nullable=False),
)

pnl_entries = Table(
    "pnl_entries",
    metadata,
    Column("account", Text, primary_key=True),
    Column("venue", Text, primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("trade_id", BigInteger, primary_key=True),
    Column("day", Text, nullable=False),  # UTC, 2026-11-21
    Column("asset", Text, nullable=False),
    Column("realized", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("commission_asset", Text, nullable=False),
)

pnl_daily = Table(
    "pnl_daily",
    metadata,
    Column("venue", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("realized", ExactDecimal, nullable=False),
    Column("commission", ExactDecimal, nullable=False),
    Column("funding", ExactDecimal, nullable=False),
    Column("trades", Integer, nullable=False, server_default="0"),
)

income = Table(
    # Funding, transfers and the like, by the exchange's own transaction id.
    "income",
    metadata,
    Column("venue", Text, primary_key=True),
    Column("income_type", Text, primary_key=True),
    Column("tran_id", Text, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", ExactDecimal, nullable=False),
    Column("time_ms", Millis, nullable=False),
)

followups = Table(
    # The outbox: what must still be done because of something that is done.
    "followups",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("intent_key", Text),
    Column("payload", Text, nullable=False, server_default="{}"),
    Column("run_at_ms", Millis, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("created_at_ms", Millis, nullable=False),
    Column("done_at_ms", Millis),
    Index(
        "followups_due",
        "run_at_ms",
        sqlite_where=text("done_at_ms IS NULL"),
        postgresql_where=text("done_at_ms IS NULL"),
    ),
    Index("followups_by_intent", "intent_key"),
)

inbox = Table(
    # The receiving side of the outbox: a key is here in the transaction that had its effect.
    "inbox",
    metadata,
    Column("key", Text, primary_key=True),
    Column("received_at_ms", Millis, nullable=False),
)

tallies = Table(
    # Counts of rare things, written in the transaction of what they count; a few rows each: writers do not queue.
    "tallies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)

audit = Table(
    # Hash-chained: each row's hash covers its content and the hash of the row before.
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", Millis, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
)

audit_anchor = Table(
    # Where the trail ends: without it nobody would see that rows are missing at its end.
    "audit_anchor",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

attempt_seals = Table(
    # What each seal covers, append-only. No foreign key: a record must outlive the attempt that it tells of.
    "attempt_seals",
    metadata,
    Column("key", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("seal", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Index("attempt_seals_in_order", "seal", "position", unique=True),
)

archive = Table(
    # The bulk of intents that are long over. Their rows stay in `intents`: those refuse the key, and map late trades.
    "archive",
    metadata,
    Column("key", Text, ForeignKey("intents.key"), primary_key=True),
    Column("archived_at_ms", Millis, nullable=False),
    # A file that got a copy, as it was named then; NULL: none did.
    Column("file", Text),
    Column("body", LargeBinary, nullable=False),
)
