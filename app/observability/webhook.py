"""Hands one alert to a webhook: one POST with a JSON body, and an id by which the receiver can tell a repetition."""

import json
from collections.abc import Mapping
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

ID_HEADER: Final = "Idempotency-Key"


class WebhookError(Exception):
    """The receiver did not say that it has the alert; whether it has is not known, so that it is told again."""


class Webhook:
    """One receiver. Not for several threads."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1)

    def send(self, alert: Mapping[str, Any]) -> None:
        """Post `alert`; its `id` stays the same at every repetition.

        Raises:
            WebhookError: any answer but 2xx, none in time, or no connection. Never quotes the URL: it may hold a token.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "fillonce", ID_HEADER: str(alert["id"])}
        try:
            answer = self._pool.request(
                "POST", self._url, body=json.dumps(alert).encode(), headers=headers, retries=False, redirect=False,
                timeout=urllib3.Timeout(total=self._timeout_s), preload_content=False,
            )  # fmt: skip
        except (HTTPError, OSError, ValueError) as error:
            raise WebhookError(f"not delivered: {type(error).__name__}") from None
        # What it says beyond the status is not read: a body without end must not hold anybody up.
        answer.close()
        if not 200 <= answer.status < 300:
            raise WebhookError(f"not delivered: HTTP {answer.status}")
