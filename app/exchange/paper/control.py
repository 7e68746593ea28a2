"""The control plane under ``/paper/``: ground truth, clock, prices, deposits, funding, faults. Unsigned; loopback only.

Bodies and replies are JSON. Errors are HTTP 400 with ``{"error": text}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from app.exchange.paper import truth
from app.exchange.paper.canned import CannedReply, json_reply
from app.exchange.paper.commands import Deposit, Funding, SetClock, SetPrice
from app.exchange.paper.errors import PaperError
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.faults import FaultAction, FaultMatch, FaultPlan, FaultRule
from app.exchange.paper.gateway import Gateway
from app.exchange.paper.model import Venue, text
from app.exchange.paper.stepper import Stepper
from app.exchange.paper.wire import Reply, Request

Body = dict[str, Any]


class ControlPlane:
    """Handlers of the control endpoints."""

    def __init__(self, exchange: Exchange, gateway: Gateway, stepper: Stepper) -> None:
        self._exchange = exchange
        self._gateway = gateway
        self._stepper = stepper
        self._handlers: dict[tuple[str, str], Callable[[Body], Any]] = {
            ("GET", "/paper/health"): lambda _: {"status": "ok"},
            ("GET", "/paper/truth"): lambda _: truth.whole(exchange),
            ("GET", "/paper/truth/summary"): lambda _: truth.summary(exchange),
            ("GET", "/paper/clock"): lambda _: self._clock(),
            ("GET", "/paper/limits"): lambda _: self.limits(),
            ("POST", "/paper/clock"): self.set_clock,
            ("POST", "/paper/price"): self.set_price,
            ("POST", "/paper/step"): self.step,
            ("POST", "/paper/deposit"): self.deposit,
            ("POST", "/paper/funding"): self.funding,
            ("POST", "/paper/market"): self.set_market,
            ("POST", "/paper/engine"): self.set_engine,
            ("GET", "/paper/faults"): lambda _: self.faults(),
            ("POST", "/paper/faults"): self.set_faults,
            ("DELETE", "/paper/faults"): lambda _: self.set_faults({"rules": []}),
        }

    async def handle(self, request: Request) -> Reply:
        """Answer one control request."""
        handler = self._handlers.get((request.method, request.path))
        if handler is None:
            return json_reply({"error": "no such control endpoint"}, status=404)
        try:
            body = json.loads(request.body, parse_float=Decimal) if request.body else {}
            return json_reply(handler(body))
        except (KeyError, ValueError, TypeError, AttributeError, InvalidOperation, re.error, PaperError) as error:
            return json_reply({"error": f"{type(error).__name__}: {error}"}, status=400)

    def _clock(self) -> Body:
        return {"now_ms": self._gateway.now_ms(), "offset_ms": self._exchange.offset_ms}

    def limits(self) -> Body:
        """How many requests each venue has refused for its limits, by HTTP status."""
        return {
            venue.value: {str(status): count for status, count in limiter.refusals.items()}
            for venue, limiter in self._gateway.limiters.items()
        }

    def set_clock(self, body: Body) -> Body:
        """``{"offset_ms": n}`` or ``{"advance_ms": n}``: shift exchange time; survives a restart."""
        offset_ms = (
            int(body["offset_ms"]) if "offset_ms" in body else self._exchange.offset_ms + int(body["advance_ms"])
        )
        self._exchange.execute(SetClock(at=self._gateway.now_ms(), offset_ms=offset_ms))
        return self._clock()

    def set_price(self, body: Body) -> Body:
        """``{"symbol": s, "price": "p"}``: trade the market at one price; fills what it reaches."""
        symbol, price = str(body["symbol"]), Decimal(str(body["price"]))
        if symbol not in self._exchange.market.prices or price <= 0:
            raise ValueError(f"no such symbol, or no price: {symbol} {price}")
        self._exchange.execute(SetPrice(at=self._gateway.now_ms(), symbol=symbol, price=price))
        return self._prices()

    def _prices(self) -> Body:
        prices = {symbol: text(price) for symbol, price in self._exchange.market.prices.items()}
        return {"steps": self._exchange.market.steps, "prices": prices}

    def step(self, body: Body) -> Body:
        """``{"candles": n}``: let the market trade through the next n candles (default 1)."""
        for _ in range(int(body.get("candles", 1))):
            self._stepper.step()
        return self._prices()

    def deposit(self, body: Body) -> Body:
        """``{"venue": "futures"|"spot", "asset": a, "amount": "x"}``; a negative amount withdraws."""
        self._exchange.execute(
            Deposit(
                at=self._gateway.now_ms(),
                venue=Venue(body["venue"]).value,
                asset=str(body["asset"]),
                amount=Decimal(str(body["amount"])),
            )
        )
        return truth.summary(self._exchange)

    def funding(self, body: Body) -> Body:
        """``{"symbol": s, "rate": "r"}``: settle funding; a positive rate makes longs pay."""
        symbol = str(body["symbol"])
        if symbol not in self._exchange.futures.specs:
            raise ValueError(f"no such symbol: {symbol}")
        self._exchange.execute(Funding(at=self._gateway.now_ms(), symbol=symbol, rate=Decimal(str(body["rate"]))))
        return truth.summary(self._exchange)

    def set_market(self, body: Body) -> Body:
        """Depth and fees, any of the fields of `Configure`; ``level_notional`` "0" is bottomless (no partial fills)."""
        now = self._exchange.configuration
        if now is None:
            raise ValueError("not configured")
        changes: Body = {}
        for name, value in body.items():
            old = getattr(now, name)
            changes[name] = Decimal(str(value)) if isinstance(old, Decimal) else type(old)(value)
        self._exchange.execute(replace(now, **{**changes, "at": self._gateway.now_ms()}))
        return {name: text(value) if isinstance(value, Decimal) else value for name, value in changes.items()}

    def set_engine(self, body: Body) -> Body:
        """``{"delay_ms": n}``: every order and cancel takes that long from gateway to matching engine; volatile."""
        self._gateway.engine_delay_ms = int(body["delay_ms"])
        return {"delay_ms": self._gateway.engine_delay_ms}

    def faults(self) -> Body:
        """The schedule in force, with how often each rule struck."""
        plan = self._gateway.faults
        return {"rules": plan.report() if plan is not None else []}

    def set_faults(self, body: Body) -> Body:
        """``{"seed": n, "rules": [...]}``: replace the schedule; counters start at zero."""
        rules = [parse_rule(row, number) for number, row in enumerate(body["rules"])]
        self._gateway.faults = FaultPlan.of(rules, int(body.get("seed", 1))) if rules else None
        return self.faults()


def parse_rule(row: Body, number: int) -> FaultRule:
    """One rule of a schedule.

    Raises:
        KeyError, ValueError, TypeError: It is not a rule.
    """
    unknown = set(row) - {
        "name",
        "action",
        "match",
        "ms",
        "fraction",
        "canned",
        "status",
        "body",
        "headers",
        "content_type",
    }
    if unknown:
        raise ValueError(f"unknown fields in a fault rule: {sorted(unknown)}")
    match: Body = dict(row.get("match", {}))
    if "probability" in match:
        match["probability"] = float(match["probability"])
    action = FaultAction(row["action"])
    reply: Reply | None = None
    if "status" in row or "body" in row:
        body = row.get("body", "")
        content = body if isinstance(body, str) else json.dumps(body)
        reply = Reply(
            status=int(row.get("status", 200)),
            body=content.encode(),
            headers=tuple((str(name), str(value)) for name, value in dict(row.get("headers", {})).items()),
            content_type=str(row.get("content_type", "application/json")),
        )
    name = CannedReply(row["canned"]) if row.get("canned") else None
    if action in {FaultAction.REPLY_INSTEAD, FaultAction.REPLY_AFTER_EXECUTION} and reply is None and name is None:
        raise ValueError(f"{action.value} needs canned, or status and body")
    return FaultRule(
        name=str(row.get("name", f"rule-{number}")),
        action=action,
        match=FaultMatch(**match),
        ms=int(row.get("ms", 0)),
        fraction=str(row.get("fraction", "0.5")),
        canned=name,
        reply=reply,
    )
