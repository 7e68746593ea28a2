"""The kill switch: what people write, what it means, and that Python and Lua read it alike."""

import itertools

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.job_safety.admission import Admission, Admitted, Blocked, EffectKind
from app.job_safety.kill_switch import ALLOWED, KillState, parse, read_key, strictest
from app.job_safety.side_effect_guard import GuardNames
from tests.safety.simulation.virtual_redis import VirtualRedis
from tests.support.clock import FakeClock
from tests.support.redis_server import free_port

K = KillState
WORDS = {
    None: K.RUN,
    "false": K.RUN,
    "FALSE": K.RUN,
    "0": K.RUN,
    "no": K.RUN,
    "run": K.RUN,
    "RUN": K.RUN,
    "reduce_only": K.REDUCE_ONLY,
    "Reduce_Only": K.REDUCE_ONLY,
    "cancel_only": K.CANCEL_ONLY,
    "true": K.HALT,
    "True": K.HALT,
    "1": K.HALT,
    "yes": K.HALT,
    "halt": K.HALT,
    "HALT": K.HALT,
    "": K.HALT,
    "off": K.HALT,
    "reduce-only": K.HALT,
    "run!": K.HALT,
    "\x00": K.HALT,
    "stöp": K.HALT,
}
NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")


class LuaOnly:
    """A client that can run the real script and nothing else."""

    def __init__(self, redis: VirtualRedis) -> None:
        self._redis = redis

    def register_script(self, source: str) -> object:
        return self._redis.script(source)


def admitted_kinds(value: str | None) -> set[EffectKind]:
    """Return which kinds the Lua of admission lets through."""
    redis = VirtualRedis(FakeClock())
    if value is not None:
        redis.set("kill", value)
    admission = Admission(LuaOnly(redis), NAMES, owner="w", lease_ttl_ms=4_000)  # type: ignore[arg-type]
    answers = {kind: admission.ask("order", kind.value, kind=kind, venue="usdm") for kind in EffectKind}
    for answer in answers.values():
        assert isinstance(answer, Admitted) or (isinstance(answer, Blocked) and answer.why.startswith("kill_switch:"))
    return {kind for kind, answer in answers.items() if isinstance(answer, Admitted)}


@pytest.mark.parametrize(("word", "state"), WORDS.items())
def test_word_means_its_state(word: str | None, state: KillState) -> None:
    assert parse(word) is state
    assert parse(None if word is None else word.encode()) is state


@pytest.mark.parametrize("value", [b"\xff\xfe", b"run\xff", b"\xa0run"])
def test_bytes_that_are_no_text_halt(value: bytes) -> None:
    assert parse(value) is K.HALT


@pytest.mark.parametrize("word", WORDS)
def test_lua_lets_through_what_python_allows(word: str | None) -> None:
    assert admitted_kinds(word) == ALLOWED[WORDS[word]]


@pytest.mark.parametrize("word", [" run", "run\n", "\treduce_only "])
def test_lua_is_never_laxer_than_python(word: str) -> None:
    """Python strips what surrounds a word and Lua does not; the stricter one counts, since both are asked."""
    assert admitted_kinds(word) <= ALLOWED[parse(word)]


def test_stricter_states_allow_ever_less_and_work_in_our_own_database_always() -> None:
    order = [K.RUN, K.REDUCE_ONLY, K.CANCEL_ONLY, K.HALT]
    assert set(order) == set(KillState)
    for laxer, stricter in itertools.pairwise(order):
        assert ALLOWED[stricter] < ALLOWED[laxer]
    assert {kind for kind in EffectKind if all(kind in ALLOWED[state] for state in KillState)} == {EffectKind.BOOK}
    assert EffectKind.OPEN in ALLOWED[K.RUN]
    assert EffectKind.OPEN not in ALLOWED[K.REDUCE_ONLY]


@pytest.mark.parametrize("one", KillState)
@pytest.mark.parametrize("other", KillState)
def test_strictest_allows_only_what_both_allow(one: KillState, other: KillState) -> None:
    assert ALLOWED[strictest(one, other)] == ALLOWED[one] & ALLOWED[other]


def test_states_are_stored_under_these_names() -> None:
    assert {state.name: state.value for state in KillState} == {
        "RUN": "RUN",
        "REDUCE_ONLY": "REDUCE_ONLY",
        "CANCEL_ONLY": "CANCEL_ONLY",
        "HALT": "HALT",
    }


def test_key_is_read_from_a_real_server(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    assert read_key(redis, "kill") is K.RUN
    redis.set("kill", "true")
    assert read_key(redis, "kill") is K.HALT
    redis.close()


def test_key_of_another_type_stops_what_opens_risk(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    redis.rpush("kill", "true")
    assert EffectKind.OPEN not in ALLOWED[read_key(redis, "kill")]
    redis.close()


def test_without_redis_nothing_opens_risk_and_what_reduces_it_goes_on() -> None:
    unreachable = Redis(host="127.0.0.1", port=free_port(), retry=Retry(NoBackoff(), 0))
    assert read_key(unreachable, "kill") is K.REDUCE_ONLY
    unreachable.close()
