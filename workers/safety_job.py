"""RQ's job, tied down: it may name only our functions, with one key, and no callbacks, hooks or objects of its own."""

from collections.abc import Callable
from typing import Any

from rq.job import Job
from rq.timeouts import BaseDeathPenalty

from workers import jobs

REFUSED_KEY = "metrics:refused_jobs"


class RefusedJobError(Exception):
    """A job named something that is not ours to run. Somebody with access to Redis put it there."""


class SafetyJob(Job):
    """A job that can only name one of `jobs.ALLOWED`.

    RQ imports and calls whatever function a job names, so that whoever can write to Redis could run anything.
    """

    @property
    def func(self) -> Callable[[str], str]:
        """Return the function of ours that the job names.

        Raises:
            RefusedJobError: it names another, or carries more than one key.
        """
        name = self.func_name
        if name not in jobs.ALLOWED or self.instance is not None:
            raise RefusedJobError(f"refused: {str(name)[:200]!r} is not a job of ours")
        if len(self.args) != 1 or not isinstance(self.args[0], str) or self.kwargs:
            raise RefusedJobError(f"refused: {name} takes one key and nothing else")
        function: Callable[[str], str] = getattr(jobs, name.rpartition(".")[2])
        return function

    @property
    def success_callback(self) -> None:
        """Never: a callback is a function name from Redis."""

    @property
    def failure_callback(self) -> None:
        """Never."""

    @property
    def stopped_callback(self) -> None:
        """Never."""

    def send_webhooks(self, *args: Any, **kwargs: Any) -> None:
        """Never: a webhook is an address from Redis."""


class NoDeathPenalty(BaseDeathPenalty):
    """RQ's timeout would raise in the middle of a request. Ours has a deadline of its own, and an outcome."""

    def setup_death_penalty(self) -> None:
        """Do nothing."""

    def cancel_death_penalty(self) -> None:
        """Do nothing."""
