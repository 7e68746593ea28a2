"""Small parts that more than one process composes for itself."""

from app.job_safety.side_effect_guard import GuardNames, SideEffectGuard
from app.wiring import Installation


def make_guard(installation: Installation, names: GuardNames) -> SideEffectGuard:
    """Return the guard of an installation."""
    settings = installation.settings.guard
    return SideEffectGuard(
        installation.redis, names, lease_ttl_ms=settings.lease_ttl_ms, result_ttl_s=settings.result_ttl_s
    )
