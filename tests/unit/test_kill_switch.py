"""The kill switch: what people write, what it means, and that Python and Lua read it alike."""

import itertools
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.job_safety.admission import Admission, Admitted, Blocked, EffectKind
from app.job_safety.errors import StoreUnavailableError
from app.job_safety.kill_key import DRILL_PREFIX, KillKey, is_of_a_person, named
from app.job_safety.kill_switch import ALLOWED, KillState, parse, read_file, read_key, ruling, strictest
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


# The file


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (b"", K.HALT),
        (b"true", K.HALT),
        (b"false", K.HALT),
        (b"run", K.HALT),
        (b"0", K.HALT),
        (b"\xff\xfe", K.HALT),
        (b"reduce_only\n", K.REDUCE_ONLY),
        (b" CANCEL_ONLY ", K.CANCEL_ONLY),
        (b"reduce_only" * 20, K.HALT),
    ],
)
def test_file_halts_by_being_there_unless_it_holds_a_laxer_word(
    tmp_path: Path, content: bytes, state: KillState
) -> None:
    path = tmp_path / "KILL_SWITCH"
    assert read_file(path) is K.RUN
    path.write_bytes(content)
    assert read_file(path) is state
    path.unlink()
    assert read_file(path) is K.RUN


def test_anything_of_that_name_halts_even_if_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "KILL_SWITCH").mkdir()
    assert read_file(tmp_path / "KILL_SWITCH") is K.HALT
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert read_file(tmp_path / "dangling") is K.HALT
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert read_file(tmp_path / "loop") is K.HALT


def test_folder_that_cannot_be_looked_into_stops_what_opens_risk(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert read_file(tmp_path / "loop" / "KILL_SWITCH") is K.REDUCE_ONLY
    assert read_file(tmp_path / "no-such-folder" / "KILL_SWITCH") is K.RUN


def test_most_restrictive_source_rules_and_is_named() -> None:
    readings = {"journal": K.REDUCE_ONLY, "redis_key": K.RUN, "file": K.CANCEL_ONLY, "environment": K.CANCEL_ONLY}
    assert ruling(readings) == (K.CANCEL_ONLY, "file")
    assert ruling({**readings, "redis_key": K.HALT}) == (K.HALT, "redis_key")
    assert ruling({"journal": K.RUN}) == (K.RUN, "")
    assert ruling({}) == (K.RUN, "")


# Changing the key


def test_key_is_changed_only_if_it_still_says_what_was_read(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    key = KillKey(redis, "kill")
    assert key.read() is None
    assert not key.change("true", "false")
    assert key.change(None, "HALT")
    assert key.read() == "HALT"
    redis.set("kill", "true")
    assert not key.change("HALT", "false"), "a person has set it meanwhile"
    assert not key.change(None, "false")
    assert key.read() == "true"
    assert key.change("true", None)
    assert redis.exists("kill") == 0
    redis.close()


def test_change_keeps_the_expiry_and_bytes_that_are_no_text(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    key = KillKey(redis, "kill")
    redis.set("kill", b"\xff\xfe", px=600_000)
    value = key.read()
    assert parse(value) is K.HALT
    assert key.change(value, "HALT")
    assert key.change("HALT", value)
    assert redis.get("kill") == b"\xff\xfe"
    assert 0 < redis.pttl("kill") <= 600_000
    redis.close()


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("value", ["true", b"true", "1", "yes", "TRUE"])
def test_set_true_halts_whatever_the_clients_decode(redis_url: str, decode: bool, value: bytes | str) -> None:
    redis = Redis.from_url(redis_url, decode_responses=decode)
    redis.set("kill", value)
    assert read_key(redis, "kill") is K.HALT
    assert parse(KillKey(redis, "kill").read()) is K.HALT
    redis.close()


def test_key_that_holds_no_string_cannot_be_read(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    redis.rpush("kill", "true")
    with pytest.raises(StoreUnavailableError):
        KillKey(redis, "kill").read()
    redis.close()


def test_words_of_people_are_told_from_what_our_commands_write() -> None:
    assert [named(state.value) for state in KillState] == [None, K.REDUCE_ONLY, K.CANCEL_ONLY, K.HALT]
    for word in ("true", "false", "halt", "reduce_only", "RUN", "", "anything"):
        assert is_of_a_person(word), word
    for word in (None, "HALT", "REDUCE_ONLY", "CANCEL_ONLY", f"{DRILL_PREFIX}abc"):
        assert not is_of_a_person(word), word
    assert parse(f"{DRILL_PREFIX}abc") is K.HALT
