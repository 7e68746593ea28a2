"""From request to reply: faults, limits, authentication, the way to the engine, the handler, and faults again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from app.clock import Clock
from app.exchange.paper import params as p
from app.exchange.paper.auth import Authenticator, expiry_ms
from app.exchange.paper.canned import json_reply
from app.exchange.paper.errors import PaperError, outside_engine_window, outside_recv_window
from app.exchange.paper.exchange import Exchange
from app.exchange.paper.faults import NO_STRIKE, FaultPlan, Strike, Target
from app.exchange.paper.limits import RateLimiter
from app.exchange.paper.model import Venue
from app.exchange.paper.wire import Delivery, Manner, Reply, Request

CONTROL_PREFIX = "/paper/"
FOREVER_MS = 2**62


@dataclass(slots=True, kw_only=True)
class Call:
    """One request on its way to a handler. ``now_ms`` is exchange time at the engine, ``asked_ms`` at the gateway."""

    venue: Venue
    params: p.Params
    now_ms: int
    expires_ms: int = 0
    strike: Strike = NO_STRIKE

    @property
    def seen_until_ms(self) -> int:
        """Reads show what happened until then: all there is, unless a read lag puts it into the past.

        Without a lag no time is compared, since an exchange clock that was set back must not hide orders.
        """
        return self.now_ms - self.strike.read_lag_ms if self.strike.read_lag_ms else FOREVER_MS

    def check_engine_window(self) -> None:
        """The matching engine's own look at timestamp and recvWindow.

        Raises:
            PaperError: -5028 on futures, -1021 on Spot.
        """
        if self.now_ms > self.expires_ms:
            raise outside_engine_window() if self.venue is Venue.FUTURES else outside_recv_window()


Handle = Callable[[Call], Any]
Weight = int | Callable[[p.Params], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint. ``is_order`` counts toward the order limits and passes the way to the engine."""

    venue: Venue
    handle: Handle
    weight: Weight = 1
    is_signed: bool = True
    is_order: bool = False
    is_engine: bool = False


Routes = dict[tuple[str, str], Route]
Control = Callable[[Request], Coroutine[Any, Any, Reply]]


@dataclass(slots=True, kw_only=True)
class Gateway:
    """Everything between the socket and the handlers."""

    exchange: Exchange
    clock: Clock
    auth: Authenticator
    limiters: dict[Venue, RateLimiter]
    routes: Routes
    engine_delay_ms: int = 0
    faults: FaultPlan | None = None
    control: Control | None = None

    def now_ms(self) -> int:
        """Exchange time."""
        return self.clock.now_ms() + self.exchange.offset_ms

    def handle(self, request: Request) -> Delivery | Coroutine[Any, Any, Delivery]:
        """Answer a request, at once if nothing has to wait."""
        if request.path.startswith(CONTROL_PREFIX) and self.control is not None:
            return self._controlled(request)
        route = self.routes.get((request.method, request.path))
        if route is None:
            return Delivery(reply=Reply(status=404, body=b"<html>404 Not found</html>", content_type="text/html"))
        params = p.parse(request.query, request.body.decode("utf-8", "replace"))
        now_ms = self.now_ms()
        strike = NO_STRIKE
        if self.faults is not None:
            target = Target(method=request.method, path=request.path, venue=route.venue, params=params, now_ms=now_ms)
            strike = self.faults.strike(target)
            if strike.refuse_manner is not None:
                return Delivery(reply=Reply(body=b""), manner=strike.refuse_manner)
            if strike.reply_instead is not None:
                return self._delayed(strike.reply_instead, strike)
        call = Call(venue=route.venue, params=params, now_ms=now_ms, strike=strike)
        headers: tuple[tuple[str, str], ...] = ()
        try:
            headers = (self._admit(request, route, call),)
        except PaperError as refusal:
            return self._dress(_refusal(refusal, headers), strike)
        delay_ms = strike.delay_before_ms + (self.engine_delay_ms if route.is_engine else 0)
        if delay_ms:
            return self._later(route, call, headers, delay_ms)
        return self._dress(self._run(route, call, headers), strike)

    def _admit(self, request: Request, route: Route, call: Call) -> tuple[str, str]:
        limiter = self.limiters[route.venue]
        weight = route.weight if isinstance(route.weight, int) else route.weight(call.params)
        used = limiter.take_weight(request.peer, weight, call.now_ms)
        if route.is_signed:
            self.auth.check_key(request)
            self.auth.check_signature(request, call.params)
            call.expires_ms = expiry_ms(call.params, call.venue, call.now_ms)
        if route.is_order:
            limiter.take_order(call.now_ms)
        return used

    async def _later(self, route: Route, call: Call, headers: tuple[tuple[str, str], ...], delay_ms: int) -> Delivery:
        await asyncio.sleep(delay_ms / 1000)
        call.now_ms = self.now_ms()
        outcome = self._dress(self._run(route, call, headers), call.strike)
        return outcome if isinstance(outcome, Delivery) else await outcome

    def _run(self, route: Route, call: Call, headers: tuple[tuple[str, str], ...]) -> Reply:
        try:
            body = route.handle(call)
        except PaperError as refusal:
            return _refusal(refusal, headers)
        if route.is_order:
            headers += self.limiters[route.venue].order_headers(call.now_ms)
        return json_reply(body, headers=headers)

    def _dress(self, reply: Reply, strike: Strike) -> Delivery | Coroutine[Any, Any, Delivery]:
        if strike is NO_STRIKE:
            return Delivery(reply=reply)
        if strike.reply_after is not None:
            reply = strike.reply_after
        if strike.truncate_json:
            reply = replace(reply, body=reply.body[: len(reply.body) // 2])
        return self._delayed(reply, strike)

    def _delayed(self, reply: Reply, strike: Strike) -> Delivery | Coroutine[Any, Any, Delivery]:
        delivery = Delivery(reply=reply, manner=strike.manner, drip_ms=strike.drip_ms)
        return _after(strike.delay_reply_ms, delivery) if strike.delay_reply_ms else delivery

    async def _controlled(self, request: Request) -> Delivery:
        if self.control is None:
            return Delivery(reply=Reply(status=404, body=b""), manner=Manner.WHOLE)
        return Delivery(reply=await self.control(request))


async def _after(delay_ms: int, delivery: Delivery) -> Delivery:
    await asyncio.sleep(delay_ms / 1000)
    return delivery


def _refusal(refusal: PaperError, headers: tuple[tuple[str, str], ...]) -> Reply:
    return json_reply(
        {"code": refusal.code, "msg": refusal.msg}, status=refusal.status, headers=refusal.headers or headers
    )


def random_client_id() -> str:
    """A client order id for orders sent without one."""
    return secrets.token_hex(11)
