"""Hold a self test: trip every gate, keep what was proven, and tell of what was not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from app.exchange.errors import ExchangeQueryError
from app.execution import drill, opening
from app.job_safety.admission import Admitted, EffectKind
from app.job_safety.errors import RetryableError, TerminalError
from app.job_safety.outcome import Venue
from app.journal import audit
from app.observability.recorder import Recorder
from app.selftest import verdicts
from app.selftest.gates import ON_THE_WAY, Gate, control
from app.selftest.stage import PASSED, Stage, build
from app.wiring import Installation

SUBJECT: Final = "selftest"
MODES: Final = frozenset({"paper", "testnet"})
BESIDE: Final[tuple[Gate, ...]] = (
    Gate(name="classifier", where="gateway", stops_with=(verdicts.RIGHT,), trip=verdicts.classifier),
    Gate(name="redis_unsafe", where="start of mode live", stops_with=(verdicts.REFUSED,), trip=verdicts.redis_unsafe),
)
NAMES: Final = tuple(gate.name for gate in (*ON_THE_WAY, *BESIDE))


class SelfTestRefusedError(TerminalError):
    """A self test cannot be held here; says why."""


class SelfTestUnderWayError(RetryableError):
    """Another self test is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of one gate: whether it fired, and the words of what stopped the order (or that nothing did)."""

    gate: str
    where: str
    has_fired: bool
    text: str
    took_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole self test. `control` is where the order got to that no gate was to stop."""

    control: str
    tried: tuple[Tried, ...]

    @property
    def is_proven(self) -> bool:
        """Whether every gate fired, and an order passes when none is closed."""
        return self.control == PASSED and all(one.has_fired for one in self.tried)


def hold(installation: Installation, record: Recorder, *, by: str) -> Report:
    """Trip every gate and write down which fired: a row of the audit trail, and a time per gate in Redis.

    No order leaves (see `seal`), and nothing but the drill of the kill switch is felt by anybody (see `stage`).

    Args:
        installation: What is tested.
        record: Takes the events `gate_proven` and `gate_not_proven`.
        by: Who; for the audit trail.

    Raises:
        SelfTestRefusedError: the mode sends nothing or is live, or no futures symbol may be traded.
        SelfTestUnderWayError: another one is under way.
        RetryableError: the books of the account are not opened yet.
        ExchangeQueryError: the exchange does not answer.
        StoreUnavailableError: a store does not answer.
    """
    if installation.mode not in MODES:
        raise SelfTestRefusedError(
            f"mode {installation.mode}: a self test needs paper or testnet: dry_run sends nothing that a gate could "
            "stop, and its drill would hold up real orders in live; prove the same settings in paper"
        )
    if not installation.settings.universe.usdm:
        raise SelfTestRefusedError("universe.usdm names no symbol: a self test needs one")
    stage = build(installation, record)
    try:
        with _alone(stage):
            if stage.real.kill is not None:
                drill.end_if_overdue(stage.real.kill)
            opening.ensure_open(stage.real, Venue.USDM)  # else every order would wait for that, and prove nothing
            report = _try_all(stage)
            _write(stage, report, by)
    finally:
        stage.real.gateway.close()
        for recorder in (stage.shadow.record, stage.real.record, *stage.composed):
            recorder.close()
    for one in report.tried:
        if one.has_fired:
            record.event("gate_proven", level="debug", gate=one.gate, text=one.text)
        else:
            record.event("gate_not_proven", level="critical", gate=one.gate, text=one.text)
    return report


@contextmanager
def _alone(stage: Stage) -> Iterator[None]:
    """Keep other self tests off the stage, for as long as this process lives."""
    context = stage.real
    answer = context.admission.ask(SUBJECT, "stage", kind=EffectKind.BOOK, distrust_done=True)
    if not isinstance(answer, Admitted):
        raise SelfTestUnderWayError("another self test is under way")
    try:
        with context.leases.keep(SUBJECT, "stage", answer.token):
            try:
                yield
            finally:
                stage.clear()
                stage.forget_gates()
    finally:
        context.guard.release(SUBJECT, "stage", answer.token)


def _try_all(stage: Stage) -> Report:
    stage.clear()  # what a self test that died has left
    passed, clock, tried = control(stage), stage.real.clock, []
    for gate in (*ON_THE_WAY, *BESIDE):
        stage.clear()
        began_s = clock.monotonic()
        text = _trip(stage, gate)
        fired = text.startswith(gate.stops_with)
        if gate in ON_THE_WAY and passed != PASSED:
            fired, text = False, f"{text}; but an order is stopped with every gate open: {passed}"
        tried.append(
            Tried(
                gate=gate.name,
                where=gate.where,
                has_fired=fired,
                text=text,
                took_ms=round((clock.monotonic() - began_s) * 1000),
            )
        )
    return Report(control=passed, tried=tuple(tried))


def _trip(stage: Stage, gate: Gate) -> str:
    """Try one gate; what goes wrong with it is its own result, so that the others are tried too."""
    try:
        return gate.trip(stage)
    except (RetryableError, TerminalError, ExchangeQueryError, RedisError, OSError) as error:
        return f"not tried: {type(error).__name__}: {error}"


def _write(stage: Stage, report: Report, by: str) -> None:
    detail = {
        "control": report.control,
        "config_hash": stage.real.config_hash,
        "gates": {one.gate: {"has_fired": one.has_fired, "text": one.text[:300]} for one in report.tried},
    }
    with stage.real.journal.write() as connection:
        audit.append(
            connection, now_ms=stage.real.clock.now_ms(), actor=by, action="selftest", subject=SUBJECT, detail=detail
        )
