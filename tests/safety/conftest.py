"""The world of the protocol's tests: one journal for a whole file, and everything else fresh for each test."""

from collections.abc import Iterator

import pytest

from app.journal.engine import Journal
from tests.safety.simulation.world import World, open_fast_journal


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    opened = open_fast_journal(tmp_path_factory.mktemp("journal"))
    yield opened
    opened.close()


@pytest.fixture
def world(journal: Journal) -> Iterator[World]:
    made = World(journal)
    yield made
    made.close()
    assert made.watch.breaches == []
