"""The unguarded job of the peers: the POST that ours sends, over a connection that stays open, and nothing else.

Runs in the peers' own virtual environment: needs nothing but the standard library.
"""

import http.client
import os
import threading
from urllib.parse import urlencode, urlsplit

_HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "X-MBX-APIKEY": "key"}
_own = threading.local()
"""A connection for each thread: one cannot be shared, and DBOS runs jobs in many."""


def place(client_id: str) -> None:
    """Place the order with this client id.

    Raises:
        OSError: it could not be placed, or its answer did not come.
    """
    connection: http.client.HTTPConnection | None = getattr(_own, "connection", None)
    if connection is None:
        connection = _own.connection = http.client.HTTPConnection(urlsplit(os.environ["SINK_URL"]).netloc, timeout=10)
    asked = {
        "newClientOrderId": client_id, "newOrderRespType": "RESULT", "quantity": "0.001", "recvWindow": "3000",
        "side": "BUY", "symbol": "BTCUSDT", "timestamp": "1700000000000", "type": "MARKET", "signature": "0" * 64,
    }  # fmt: skip
    connection.request("POST", "/fapi/v1/order", urlencode(asked), _HEADERS)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise OSError(f"the order was answered {answer.status}")
