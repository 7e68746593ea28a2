"""For how long an admission that came ahead is believed."""

import pytest
from redis import Redis

from app.job_safety.admission import Admission
from app.job_safety.names import GuardNames

NAMES = GuardNames(namespace="guard", kill_switch="kill", mode="paper", account="main")


@pytest.mark.parametrize(("lease_ttl_ms", "fresh_s"), [(1_000, 0.5), (4_000, 2.0), (60_000, 2.0)])
def test_answer_is_believed_for_half_a_lease_and_never_for_long(lease_ttl_ms: int, fresh_s: float) -> None:
    """However long a lease is, pauses and circuits that close behind the answer count soon."""
    assert Admission(Redis(), NAMES, owner="w", lease_ttl_ms=lease_ttl_ms).fresh_s == fresh_s
