"""Ask the exchange what became of an attempt, and settle it. One step a call; two reconcilers at once do no harm.

A step asks once for the order by its client order id. Found ends it. Not found is evidence only as `evidence.py` says;
a question that failed is never evidence.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from app.exchange.errors import ExchangeQueryError
from app.exchange.models import OrderAbsent, OrderArchived
from app.execution import circuits
from app.execution.adopt import adopt
from app.execution.alarms import alarm
from app.execution.context import REDELIVER_AFTER_MS, ExecutionContext
from app.execution.evidence import Evidence, KnownOrders, Rules, Verdict, Wanted, enough_answers, judge, read_listing
from app.execution.parcels import parcel_of
from app.intents import OrderIntent, from_canonical
from app.job_safety.errors import InvariantViolatedError
from app.job_safety.keys import CLIENT_ORDER_ID_PREFIX
from app.job_safety.outcome import ExchangeOrder, Venue
from app.job_safety.state import DOUBTFUL, IntentState
from app.journal import attempts, fills, intents, meta
from app.journal.fence import is_before
from app.journal.rows import AttemptRow, IntentRow
from app.money import plain

STEPS_MS: Final = (500, 1_000, 2_000)
"""Time between questions: quick at first, since most doubts end with "found"."""

UNANSWERED_MS: Final = 3_000
WITNESS_MS: Final = 5_000
"""While all that is missing is a witness: each look costs the weight of a whole listing."""

QUARANTINED_MS: Final = 30_000
"""A person looks after it; proof is still welcome."""

MAX_COUNTED_MS: Final = 5_000
"""The most that one answered step adds to the time after which an intent is quarantined."""


class StepResult(StrEnum):
    """What one step did."""

    SETTLED = "settled"
    WAITING = "waiting"
    NOT_IN_DOUBT = "not_in_doubt"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    row: IntentRow
    intent: OrderIntent
    attempts: list[AttemptRow]
    evidence: Evidence
    rules: Rules
    wanted: Wanted

    @property
    def is_refused_for_good(self) -> bool:
        """Whether the exchange has refused the last attempt in a way that leaves nothing to try again."""
        last = self.attempts[-1]
        return last.outcome == "REFUSED" and last.retry_delay_ms is None


def step(context: ExecutionContext, key: str) -> StepResult:
    """Ask once what became of the intent's open attempts, and settle what can be settled.

    The caller has made sure that the owner of a DISPATCHED attempt is dead or its lease is gone.

    Raises:
        StoreUnavailableError: the journal could not be read or written.
    """
    case = _open_case(context, key)
    if case is None:
        return StepResult.NOT_IN_DOUBT
    venue = Venue(case.intent.venue)
    try:
        circuits.tell_of_unknown(context, case.row, case.attempts[-1])
        # The exchange's clock is read before the order is asked for, so that "not found" was asked after that time.
        server_time_ms = context.gateway.server_time(venue).server_time_ms
        answer = context.gateway.get_order(
            venue, case.intent.symbol, client_order_id=case.wanted.client_order_id, is_algo=case.row.is_algo
        )
        match answer:
            case ExchangeOrder():
                return _found(context, key, answer)
            case OrderArchived():
                return _quarantine(context, case, "the exchange has archived this order; look it up by hand")
            case OrderAbsent():
                return _not_found(context, case, server_time_ms)
    except ExchangeQueryError:
        _ask_again(context, case, counted_ms=0, pause_ms=UNANSWERED_MS)
        return StepResult.UNANSWERED


def _open_case(context: ExecutionContext, key: str) -> _Case | None:
    with context.journal.write() as connection:
        row = intents.load(connection, key, lock=True)
        if row.type != "order" or row.state not in DOUBTFUL:
            return None
        now_ms = context.clock.now_ms()
        if row.state is IntentState.DISPATCHED:
            intents.move(
                connection, row, IntentState.IN_DOUBT, now_ms=now_ms, in_doubt_since_ms=row.in_doubt_since_ms or now_ms,
                fence=meta.raise_fence(connection, row.fence), reason="its worker died before the answer was journaled",
                run_at_ms=now_ms + REDELIVER_AFTER_MS,
            )  # fmt: skip
            died_at_ms = next((one.dispatched_at_ms for one in attempts.of_intent(connection, key)[-1:]), now_ms)
            context.record.event(
                "in_doubt", key=key, attempt=row.attempt, rule="owner_died", job_type=row.job_type,
                after_ms=now_ms - died_at_ms,
            )  # fmt: skip
            row = intents.load(connection, key)
        tries = attempts.of_intent(connection, key)
        stamp = meta.load(connection)
    intent = from_canonical(row.content)
    if not isinstance(intent, OrderIntent) or row.client_order_id is None or not tries:
        raise InvariantViolatedError(f"{key}: in doubt without an order, a client order id or an attempt")
    fence_ms = max((one.fence_ms for one in tries if not one.ended_by_own_answer), default=tries[-1].fence_ms)
    horizons = context.horizons
    if stamp.restored_at_ms is not None and is_before(tries[-1].fence, stamp.epoch):
        # Attempts after this one may have been forgotten; none was pinned after the restore.
        fence_ms = max(fence_ms, stamp.restored_at_ms + horizons.recv_window_ms)
    return _Case(
        row=row,
        intent=intent,
        attempts=tries,
        evidence=Evidence.read(_carrier(tries).evidence, fence_ms=fence_ms),
        rules=Rules(
            margin_ms=horizons.absent_spread_algo_ms if row.is_algo else horizons.fence_margin_ms,
            answers=horizons.absent_answers,
            spread_ms=horizons.absent_spread_ms(Venue(intent.venue), is_algo=row.is_algo),
            max_read_lag_ms=horizons.max_read_lag_ms,
        ),
        wanted=Wanted(
            client_order_id=row.client_order_id,
            symbol=intent.symbol,
            side=intent.side,
            quantity=plain(intent.quantity),
            fence_ms=fence_ms,
        ),
    )


def _found(context: ExecutionContext, key: str, order: ExchangeOrder) -> StepResult:
    with context.journal.write() as connection:
        adopted = adopt(context, connection, key=key, order=order, source="reconcile")
    context.hand_over(adopted.parcels)
    return StepResult.SETTLED


def _not_found(context: ExecutionContext, case: _Case, server_time_ms: int) -> StepResult:
    evidence = case.evidence.with_absence(server_time_ms, case.rules)
    if enough_answers(evidence, case.rules):
        orders = context.gateway.all_orders(
            Venue(case.intent.venue), case.intent.symbol, start_ms=_since_ms(context, case), is_algo=case.row.is_algo
        )
        listing = read_listing(orders, case.wanted, _known(context, case, orders))
        if listing.found is not None:
            return _found(context, case.row.key, listing.found)
        evidence = evidence.with_listing(listing, server_time_ms)
        if listing.suspects:
            context.record.event("listing_unexplained", key=case.row.key, orders=[o.order_id for o in listing.suspects])
    is_over = (
        case.row.cancel_requested
        or case.row.state is IntentState.QUARANTINED
        or case.is_refused_for_good
        or (
            case.row.valid_until_ms is not None
            and server_time_ms + context.horizons.recv_window_ms > case.row.valid_until_ms
        )
    )
    needs_explaining = is_over and evidence.clean_listing_ms and not evidence.witness_order_id
    verdict = judge(
        evidence,
        case.rules,
        server_time_ms=server_time_ms,
        venue_is_healthy=_venue_is_healthy(context, case),
        opens_risk=case.row.opens_risk,
        is_over=is_over,
        nothing_unexplained=bool(needs_explaining) and _nothing_unexplained(context, case),
    )
    if verdict is Verdict.WAIT:
        return _wait(context, case, evidence)
    return _absent(context, case, evidence, verdict)


def _absent(context: ExecutionContext, case: _Case, evidence: Evidence, verdict: Verdict) -> StepResult:
    now_ms = context.clock.now_ms()
    row = case.row
    after = IntentState.RETRY_WAIT if verdict is Verdict.ABSENT else IntentState.EXPIRED
    with context.journal.write() as connection:
        changes: dict[str, object] = {
            "fence": meta.raise_fence(connection, row.fence),
            "reason": f"proven not executed (witness order {evidence.witness_order_id})"
            if evidence.witness_order_id
            else "not executed by the lesser evidence",
            "in_doubt_since_ms": None,
            "answered_doubt_ms": 0,
        }
        if after is IntentState.EXPIRED:
            changes |= {"booked_at_ms": now_ms}
        else:
            changes |= {"run_at_ms": now_ms + REDELIVER_AFTER_MS, "not_before_ms": 0}
        if not intents.move(connection, row, after, now_ms=now_ms, **changes):
            return StepResult.WAITING  # somebody settled it meanwhile, or proof came in
        _keep(connection, case, evidence)
        for attempt in case.attempts:
            attempts.settle(
                connection, key=row.key, attempt=attempt.attempt, outcome=attempts.ABSENT, by="reconcile", now_ms=now_ms
            )
    context.record.event(
        "proven_absent", key=row.key, verdict=verdict.value, witness=evidence.witness_order_id,
        doubt_ms=now_ms - (row.in_doubt_since_ms or now_ms),
    )  # fmt: skip
    if after is IntentState.RETRY_WAIT:
        context.hand_over([parcel_of(row)])
    return StepResult.SETTLED


def _wait(context: ExecutionContext, case: _Case, evidence: Evidence) -> StepResult:
    now_ms = context.clock.now_ms()
    counted_ms = min(now_ms - case.row.updated_at_ms, MAX_COUNTED_MS)
    is_too_long = case.row.answered_doubt_ms + counted_ms >= context.horizons.quarantine_after_ms
    if is_too_long and case.row.state is IntentState.IN_DOUBT:
        return _quarantine(context, case, "undecidable: not found, and not proven absent", evidence)
    _ask_again(context, case, counted_ms=max(counted_ms, 0), evidence=evidence)
    return StepResult.WAITING


def _ask_again(
    context: ExecutionContext,
    case: _Case,
    *,
    counted_ms: int,
    evidence: Evidence | None = None,
    pause_ms: int | None = None,
) -> None:
    now_ms = context.clock.now_ms()
    with context.journal.write() as connection:
        is_current = intents.touch(
            connection, case.row, now_ms=now_ms, run_at_ms=now_ms + (pause_ms or _pause_ms(case, evidence)),
            answered_doubt_ms=case.row.answered_doubt_ms + counted_ms,
        )  # fmt: skip
        if is_current and evidence is not None:
            _keep(connection, case, evidence)


def _pause_ms(case: _Case, evidence: Evidence | None) -> int:
    if case.row.state is IntentState.QUARANTINED:
        return QUARANTINED_MS
    if evidence is not None and evidence.clean_listing_ms:
        return WITNESS_MS
    return STEPS_MS[min(evidence.absent_count if evidence else 0, len(STEPS_MS) - 1)]


def _keep(connection: Connection, case: _Case, evidence: Evidence) -> None:
    """Store evidence, in a transaction that has compared the row: it must not outlive the doubt that it belongs to."""
    attempts.keep_evidence(
        connection, key=case.row.key, attempt=_carrier(case.attempts).attempt, evidence=evidence.as_json()
    )


def _quarantine(context: ExecutionContext, case: _Case, reason: str, evidence: Evidence | None = None) -> StepResult:
    now_ms = context.clock.now_ms()
    if case.row.state is IntentState.QUARANTINED:
        _ask_again(context, case, counted_ms=0)
        return StepResult.WAITING
    with context.journal.write() as connection:
        moved = intents.move(
            connection,
            case.row,
            IntentState.QUARANTINED,
            now_ms=now_ms,
            reason=reason,
            run_at_ms=now_ms + QUARANTINED_MS,
        )
        if moved and evidence is not None:
            _keep(connection, case, evidence)
        if moved:
            alarm(context, connection, "quarantined", case.row, reason=reason)
    return StepResult.SETTLED


def _known(context: ExecutionContext, case: _Case, orders: list[ExchangeOrder]) -> KnownOrders:
    with context.journal.read() as connection:
        by_client_id = intents.by_client_order_ids(connection, [order.client_order_id for order in orders])
        by_order_id = intents.by_order_ids(
            connection,
            venue=case.intent.venue,
            symbol=case.intent.symbol,
            order_ids=[order.order_id for order in orders],
        )
    return KnownOrders(
        client_order_ids=frozenset(by_client_id), order_ids=frozenset(by_order_id), prefix=CLIENT_ORDER_ID_PREFIX
    )


def _carrier(tries: list[AttemptRow]) -> AttemptRow:
    """Return the attempt that keeps the evidence: the last one that is open, since a settled one takes no more."""
    return next((one for one in reversed(tries) if one.outcome is None), tries[-1])


def _since_ms(context: ExecutionContext, case: _Case) -> int:
    return case.attempts[0].timestamp_ms - context.horizons.all_orders_lookback_ms


def _venue_is_healthy(context: ExecutionContext, case: _Case) -> bool:
    if not circuits.is_closed(context, Venue(case.intent.venue)):
        return False
    since_ms = context.clock.now_ms() - context.horizons.healthy_for_ms
    with context.journal.read() as connection:
        return not attempts.venue_left_unknown(connection, venue=case.intent.venue, since_ms=since_ms)


def _nothing_unexplained(context: ExecutionContext, case: _Case) -> bool:
    """Every trade since the first attempt is accounted for, and the position is what the books say."""
    venue, symbol = Venue(case.intent.venue), case.intent.symbol
    trades = context.gateway.trades_since(venue, symbol, start_ms=_since_ms(context, case))
    positions = context.gateway.positions() if venue is Venue.USDM else []
    held = next((position.quantity for position in positions if position.symbol == symbol), None)
    with context.journal.read() as connection:
        owners = intents.by_order_ids(
            connection, venue=venue.value, symbol=symbol, order_ids=list({trade.order_id for trade in trades})
        )
        # A trade that is not ours is explained once the sweep has booked it as external.
        strangers = [trade.trade_id for trade in trades if trade.order_id not in owners]
        if set(strangers) - fills.booked(connection, venue=venue.value, symbol=symbol, trade_ids=strangers):
            return False
        return venue is not Venue.USDM or (held or 0) == context.books.position(connection, venue=venue, symbol=symbol)
