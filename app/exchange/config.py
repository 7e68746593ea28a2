"""What the gateway must be told. Plain values: only entry points read settings."""

from collections.abc import Callable
from dataclasses import dataclass, field

from app.exchange.exchange_clock import ExchangeClockLimits
from app.exchange.models import MAX_RECV_WINDOW_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Addresses, credentials and time limits of the exchange.

    `api_key` and `api_secret` are functions, so that no representation of this object shows them. They are asked when
    a process opens its HTTP session.

    Attributes:
        futures_url: Base address ending in `/fapi`.
        spot_url: Base address ending in `/api`.
        api_key: Returns the key.
        api_secret: Returns the secret.
        recv_window_ms: `recvWindow` of queries (a placement carries its own, pinned one).
        connect_timeout_s: Per address tried.
        read_timeout_s: Silence taken for an end. Longer than Binance's own 10 s, so that its -1007 arrives instead.
        outer_deadline_s: Longest time one placement may take, connecting included.
        query_deadline_s: Longest time one query may take, all its tries included.
        query_tries: Most tries of one query.
        time_deadline_s: Longest time one request for the exchange's time may take.
        clock_limits: How old and how vague the estimate of its clock may be.
        proxy_url: `http://host:port` of an egress proxy; the environment's proxy variables are ignored.
        ca_file: PEM file to trust instead of the bundled authorities.
    """

    futures_url: str
    spot_url: str
    api_key: Callable[[], str] = field(repr=False)
    api_secret: Callable[[], str] = field(repr=False)
    recv_window_ms: int = 3000
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 12.0
    outer_deadline_s: float = 15.0
    query_deadline_s: float = 10.0
    query_tries: int = 3
    time_deadline_s: float = 3.0
    clock_limits: ExchangeClockLimits = field(default_factory=ExchangeClockLimits)
    proxy_url: str | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse addresses and limits that cannot work."""
        for name, url, ending in (
            ("futures_url", self.futures_url, "/fapi"),
            ("spot_url", self.spot_url, "/api"),
        ):
            if not url.startswith(("http://", "https://")) or not url.endswith(ending):
                raise ValueError(f"{name}: {url!r} must start with https:// (or http://) and end in {ending}")
        if not 0 < self.recv_window_ms <= MAX_RECV_WINDOW_MS:
            raise ValueError(f"recv_window_ms: must be between 1 and {MAX_RECV_WINDOW_MS}")
        limits = (
            self.connect_timeout_s,
            self.read_timeout_s,
            self.outer_deadline_s,
            self.query_deadline_s,
            self.query_tries,
            self.time_deadline_s,
        )
        if min(limits) <= 0:
            raise ValueError("timeouts, deadlines and tries: must be positive")
        if self.outer_deadline_s < self.read_timeout_s:
            raise ValueError("outer_deadline_s: must not be shorter than read_timeout_s")
