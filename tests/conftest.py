"""Real stores for tests that ask: a Redis per process, a PostgreSQL per run, a fresh database per test.

And one nursery per process: what it has imported serves every file of tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import migrated
from tests.support.nursery import Nursery, shared
from tests.support.order import longest_first
from tests.support.postgres import Postgres
from tests.support.redis_server import RedisServer


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items[:] = longest_first(items, processes=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server behind `redis_url`, for tests that kill, pause or change it: the next test gets it repaired."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty real server with its append-only file on and noeviction."""
    redis_server.renew()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The PostgreSQL of this test run; `TEST_DATABASE_URL` names another, on which databases may be created."""
    base = tmp_path_factory.getbasetemp()
    # Under xdist every process has its own folder inside the run's.
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    server = Postgres(run / "postgres", url=os.environ.get("TEST_DATABASE_URL"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def journal_template(postgres_server: Postgres) -> Iterator[str]:
    """The name of the database that `postgres_url` and `database_url` are copies of."""
    with migrated.postgres_template(postgres_server) as name:
        yield name


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, postgres_server: Postgres, journal_template: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database with the journal's tables, all of them empty."""
    with postgres_server.fresh_database(template=journal_template, user=request.node.name) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database with the journal's tables: the same test runs on both kinds."""
    if request.param == "sqlite":
        return migrated.sqlite_url(tmp_path / "journal.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: Postgres) -> Iterator[str]:
    """The URL of a fresh database without any table, for what makes them."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'journal.db'}"
        return
    with postgres_server.fresh_database(user=request.node.name) as url:
        yield url


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """The parent of the processes of ours; it ends with the test process."""
    return shared()
