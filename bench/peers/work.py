"""The job, the same for every peer: place one order, then note that the job came to its end.

Runs in the peers' own virtual environment: needs nothing but the standard library and redis-py.
"""

import http.client
import json
import os
from urllib.parse import urlsplit

from redis import Redis

DONE = "bench:done"
TIMEOUT_S = 10


def place(client_id: str) -> None:
    """Place the order with this client id.

    Raises:
        OSError: it could not be placed, or its answer did not come.
    """
    connection = http.client.HTTPConnection(urlsplit(os.environ["SINK_URL"]).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/order", json.dumps({"id": client_id, "pid": os.getpid()}))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise OSError(f"the order was answered {answer.status}")
    finally:
        connection.close()
    with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        redis.sadd(DONE, client_id)
