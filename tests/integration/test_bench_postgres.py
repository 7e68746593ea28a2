"""The bench's own PostgreSQL: it syncs, and tells how often was committed."""

from collections.abc import Iterator

import psycopg
import pytest

from bench.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    one = PostgresServer()
    yield one
    one.stop()


def test_what_is_measured_includes_the_disk(server: PostgresServer) -> None:
    shown = [server.ask(f"SHOW {name}") for name in ("fsync", "full_page_writes", "synchronous_commit")]
    assert shown == ["on", "on", "on"]


def test_commits_that_wrote_something_are_counted_and_no_others(server: PostgresServer) -> None:
    url = server.create("counted")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (x integer)")
        position = server.log_position()
        for number in range(3):
            connection.execute("INSERT INTO t VALUES (%s)", [number])
        connection.execute("SELECT * FROM t").fetchall()
        connection.execute("BEGIN; INSERT INTO t VALUES (9); ROLLBACK")
    assert server.commits_since(position) == 3
