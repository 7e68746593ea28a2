"""The kill switch over HTTP: for who shows the token, with the rules and the words of `fillonce kill-switch`.

What stops must work while much else does not. So a right token is heard whatever number of wrong ones arrives with it,
and who waits for orders on the wire keeps nobody else from throwing the switch.
"""

import hmac
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app.clock import Clock
from app.control import kill_verbs
from app.control.kill import Control
from app.exchange.errors import ExchangeQueryError
from app.job_safety.errors import JobSafetyError
from app.job_safety.kill_switch import KillSource, KillState
from app.monitor.answer import Answer, as_json
from app.monitor.kill_request import BadRequestError, KillRequest, parse
from app.settings import Secret

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PATH: Final = "/kill-switch"
SETTLE_S: Final = 10.0
"""How long a request waits for what was on the wire; what is not settled then is named in the answer."""

WAITERS: Final = 4
"""Who may wait so at once; others are answered as soon as the switch is thrown."""

WRONG_PER_MINUTE: Final = 10
"""Wrong tokens that are answered and logged one by one; further ones within a minute get a 429."""

MINUTE_S: Final = 60.0
_NOT_SERVED: Final = (
    "set FILLONCE_KILL_SWITCH_TOKEN_FILE (kill_switch.http_token) for the exporter and start it anew; "
    "`fillonce kill-switch` works without"
)
_SHOW_IT: Final = "send the header `Authorization: Bearer TOKEN` with the token that the exporter was started with"


@dataclass(slots=True, kw_only=True)
class WrongTokens:
    """Counts wrong tokens of the last minute. Threads may share it."""

    clock: Clock
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen_s: deque[float] = field(default_factory=lambda: deque(maxlen=WRONG_PER_MINUTE))

    def are_too_many(self) -> bool:
        """Take in one more; return whether there were too many before it."""
        now_s = self.clock.monotonic()
        with self._lock:
            while self._seen_s and now_s - self._seen_s[0] >= MINUTE_S:
                self._seen_s.popleft()
            if len(self._seen_s) >= WRONG_PER_MINUTE:
                return True
            self._seen_s.append(now_s)
            return False


@dataclass(slots=True, kw_only=True)
class KillDoor:
    """Answers who asks for the switch.

    Attributes:
        token: What must be shown. None: the switch is not served.
        control: Opens the switch for one request, with connections of its own.
        log: Takes wrong tokens and what was done, never a token.
    """

    token: Secret | None
    control: Callable[[], AbstractContextManager[Control]]
    clock: Clock
    log: "FilteringBoundLogger"
    _wrong: WrongTokens = field(init=False)
    _waiters: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITERS))

    def __post_init__(self) -> None:
        self._wrong = WrongTokens(clock=self.clock)

    def answer(self, method: str, *, authorization: str, body: bytes | None, address: str) -> Answer:
        """Return the answer to a request. Nothing is changed unless its code is 200, 202 or 503.

        Args:
            method: GET or POST.
            authorization: The header.
            body: None: it was too long, or did not arrive.
            address: Who asks.
        """
        if (refused := self._refused(authorization, address)) is not None:
            return refused
        told: list[str] = []
        try:
            return self._moved(parse(body), address, told) if method == "POST" else self._status()
        except BadRequestError as error:
            return _error(error.code, f"{error.field}: {error.problem}", error.remedy, field=error.field)
        except (JobSafetyError, ExchangeQueryError, SQLAlchemyError, RedisError, OSError) as error:
            # Of a database error the cause alone: its own text holds the statement.
            text = " ".join(str(getattr(error, "orig", None) or error).split())
            self.log.error("kill_switch_over_http_failed", address=address, error=text, words=told)  # noqa: TRY400 - words, not frames
            return as_json(503, {"error": text, "remedy": "ask again; `fillonce doctor` says more", "words": told})

    def _refused(self, authorization: str, address: str) -> Answer | None:
        if self.token is None:
            return _error(404, "the kill switch is not served here: no token is configured", _NOT_SERVED)
        scheme, _, shown = authorization.strip().partition(" ")
        given = shown.strip().encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, self.token.reveal().encode()) and scheme.lower() == "bearer":
            return None
        if self._wrong.are_too_many():
            remedy = f"{_SHOW_IT}; wait a minute before the next try"
            return _error(429, "too many wrong tokens", remedy, headers={"Retry-After": str(round(MINUTE_S))})
        self.log.warning("kill_switch_wrong_token", address=address, is_missing=not authorization)
        headers = {"WWW-Authenticate": 'Bearer realm="fillonce kill switch"'}
        return _error(401, "the token is missing or wrong", _SHOW_IT, headers=headers)

    def _status(self) -> Answer:
        with self.control() as one:
            found = one.status()
            words: list[str] = [f"{found.state.value}: {kill_verbs.WORDS[found.state]}"]
            kill_verbs.tell_redis(one, words.append)
            return as_json(200, {**found.fields(), "words": words})

    def _moved(self, asked: KillRequest, address: str, told: list[str]) -> Answer:
        by = f"{asked.by} over HTTP from {address}"
        with self.control() as one:
            moved = self._release if asked.state is KillState.RUN else self._throw
            code, done = moved(one, asked, by, told)
            fields = {**one.status().fields(), **done, "by": by, "reason": asked.reason, "words": told}
        self.log.warning("kill_switch_over_http", asked=asked.state.value, by=by, reason=asked.reason, code=code)
        return as_json(code, fields)

    def _throw(self, one: Control, asked: KillRequest, by: str, told: list[str]) -> tuple[int, dict[str, object]]:
        may_wait = self._waiters.acquire(blocking=False)
        try:
            stopped = kill_verbs.throw(
                one, asked.state, by=by, reason=asked.reason, timeout_s=SETTLE_S if may_wait else 0.0, tell=told.append
            )
        finally:
            if may_wait:
                self._waiters.release()
        landing = stopped.landing
        done: dict[str, object] = {
            "is_done": True,
            "on_the_wire": len(stopped.flights),
            "settled": landing.settled,
            "not_settled": [*landing.in_flight, *landing.in_doubt],
        }
        return (200 if landing.is_over else 202), done

    def _release(self, one: Control, asked: KillRequest, by: str, told: list[str]) -> tuple[int, dict[str, object]]:
        released = kill_verbs.release(one, [KillSource.OPERATOR], by=by, reason=asked.reason, tell=told.append)
        if released.is_off:
            return 200, {"is_done": True}
        return 409, {"is_done": False, "error": "; ".join(told), "remedy": "mend what the words name, then ask again"}


def _error(
    code: int, error: str, remedy: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    named = {} if field is None else {"field": field}
    return as_json(code, {"error": error, **named, "remedy": remedy}, headers)
