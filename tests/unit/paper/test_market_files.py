from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from app.exchange.paper.market import Candle, read_candles

D = Decimal
EXPECTED = Candle(open_ms=1677628800000, open=D("1.5"), high=D(2), low=D(1), close=D("1.7"), volume=D(9))


@pytest.mark.parametrize(
    "text",
    [
        "1677628800000,1.5,2,1,1.7,9,1677628859999,1,1,1,1,0\n",
        "1677628800000000,1.5,2,1,1.7,9,1677628859999999,1,1,1,1,0\n",
        "open_time,open,high,low,close,volume,close_time\n1677628800000,1.5,2,1,1.7,9,0\n",
        "open_time,open,high,low,close,volume\n2023-03-01 00:00:00+00:00,1.5,2,1,1.7,9\n",
        "open_time,open,high,low,close,volume\n2023-03-01T00:00:00,1.5,2,1,1.7,9\n",
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_every_known_kline_form_is_read(tmp_path, text: str, is_packed: bool) -> None:
    path = tmp_path / ("klines.csv.gz" if is_packed else "klines.csv")
    path.write_bytes(gzip.compress(text.encode()) if is_packed else text.encode())
    assert list(read_candles(path)) == [EXPECTED]


def test_candle_visits_the_far_end_before_the_close() -> None:
    rising = Candle(open_ms=0, open=D(10), high=D(13), low=D(9), close=D(12), volume=D(1))
    falling = Candle(open_ms=0, open=D(12), high=D(13), low=D(9), close=D(10), volume=D(1))
    assert rising.path == (D(10), D(9), D(13), D(12))
    assert falling.path == (D(12), D(13), D(9), D(10))
