"""What chaos tests share: a Redis that may be killed, and a process that starts others quickly."""

from collections.abc import Iterator

import pytest

from tests.chaos.plans import Place
from tests.support.nursery import Nursery
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Place]:
    """Where the runs of one module take place."""
    folder = tmp_path_factory.mktemp("chaos")
    redis = RedisServer(folder / "redis").start()
    yield Place(folder=folder, redis=redis, nursery=nursery)
    redis.kill()
