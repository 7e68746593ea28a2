"""The exporter: the one place that Prometheus scrapes. Holds nothing; all it shows lives in Redis and the journal.

Beside the keeper it is a thread, because a process costs 60 MB: what goes wrong in it ends nothing else. `fillonce
exporter` runs it as a process of its own.
"""

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.clock import Clock
from app.composition import open_here
from app.control.kill import opened
from app.monitor import readings
from app.monitor.clocks import ClockWatch
from app.monitor.kill_door import KillDoor
from app.monitor.server import Pages, PortTakenError, make_server
from app.monitor.venues import own_clock, traded_venues
from app.observability.log import make_logger
from app.wiring import Installation, connect_redis
from workers.identity import new_owner
from workers.loop import Stop

QUICK_S: Final = 1.0
"""How long a question to Redis may take: a Redis that hangs must not hold up who asks how it is."""

AGAIN_S: Final = 5.0
"""How often a port that is taken is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """The parts of one exporter."""

    pages: Pages
    door: KillDoor
    watch: ClockWatch
    host: str
    port: int


def make_exporter(installation: Installation) -> Exporter:
    """Return the exporter of an installation, with connections of its own."""
    settings = installation.settings
    redis = connect_redis(installation.redis_url, timeout_s=QUICK_S)
    watch = ClockWatch(own_clock(installation), traded_venues(settings))
    return Exporter(
        pages=Pages(
            read=lambda: readings.read(installation, redis, watch.readings()),
            clock=installation.clock,
            started_ms=installation.clock.now_ms(),
        ),
        door=KillDoor(
            token=settings.kill_switch.http_token,
            control=lambda: opened(settings, installation.clock, owner="HTTP", url=installation.redis_url),
            clock=installation.clock,
            log=make_logger(owner="exporter", mode=installation.mode, account=installation.account),
        ),
        watch=watch,
        host=settings.metrics.host,
        port=settings.metrics.port,
    )


@contextlib.contextmanager
def serving(exporter: Exporter) -> Iterator[int]:
    """Serve in threads of its own until the block ends; yields the port.

    Raises:
        PortTakenError: the port is taken.
    """
    server = make_server(exporter.pages, exporter.door, exporter.host, exporter.port)
    thread = threading.Thread(target=server.serve_forever, name="exporter", daemon=True)
    exporter.watch.start()
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        exporter.watch.stop()
        server.shutdown()
        server.server_close()
        thread.join()


def start_beside(installation: Installation, stop: Stop) -> threading.Thread | None:
    """Serve beside other duties until told to stop; None if the settings want no exporter.

    A port that is taken is told of once and tried again; whatever else happens here is told of and tried again too.
    """
    settings = installation.settings.metrics
    if not settings.enabled or not settings.port:
        return None
    thread = threading.Thread(target=_serve_until, args=(installation, stop), name="exporter-keeper", daemon=True)
    thread.start()
    return thread


def _serve_until(installation: Installation, stop: Stop) -> None:
    log = make_logger(owner="exporter", mode=installation.mode, account=installation.account)
    told = ""
    while True:
        try:
            with serving(make_exporter(installation)) as port:
                log.info("exporter_listens", host=installation.settings.metrics.host, port=port)
                stop.wait_for_ever()
        except Exception as error:  # noqa: BLE001 - the duties beside it must go on whatever happens here
            if str(error) != told:
                told = str(error)
                log.error("exporter_not_listening", error=told, kind=type(error).__name__, again_s=AGAIN_S)  # noqa: TRY400 - words, not frames
        if stop.wait(AGAIN_S):
            return  # at once if it was told to end while it served


def run_exporter(*, clock: Clock | None = None, stop: Stop | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    installation = open_here(clock)
    if not installation.settings.metrics.port:
        sys.stderr.write("error: METRICS_PORT (metrics.port) is 0, which means: no exporter\n")
        return 2
    stop = stop or Stop.on_signals()
    log = make_logger(owner=new_owner("exporter"), mode=installation.mode, account=installation.account)
    try:
        with serving(make_exporter(installation)) as port:
            log.info("exporter_listens", host=installation.settings.metrics.host, port=port)
            stop.wait_for_ever()
    except (PortTakenError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter from the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.exporter", description="Serve metrics and status.")
    parser.parse_args(arguments)
    return run_exporter()


if __name__ == "__main__":
    sys.exit(main())
