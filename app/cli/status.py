"""`fillonce status`: how it stands, as the exporter's `/status` tells it, without an exporter."""

from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.output import as_json, emit


def status(*, json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Say how it stands: is it ready, kill switch, gates, queues, what is in doubt or quarantined, retries, stores.

    Exit code: 0 ready, 1 not ready, 3 a store or the exchange cannot be reached, 4 something is quarantined.

    Example:
      fillonce status
    """
    from app.cli.opening import installation  # lazy: --help needs no stores
    from app.monitor import readings
    from app.monitor.clocks import ClockWatch
    from app.monitor.status import as_text
    from app.monitor.status import status as how_it_stands
    from app.monitor.venues import own_clock, traded_venues

    with installation() as opened:
        watch = ClockWatch(own_clock(opened), traded_venues(opened.settings))
        watch.look_once()
        reading = readings.read(opened, opened.redis, watch.readings())
    told = how_it_stands(reading)
    emit([as_json(told)] if json_ else as_text(told).splitlines())
    if reading.errors or any(not clock.is_known for clock in reading.clocks.values()):
        raise typer.Exit(exit_codes.UNAVAILABLE)
    if told["quarantined"]["count"]:
        raise typer.Exit(exit_codes.IN_DOUBT)
    if not told["ready"]:
        raise typer.Exit(exit_codes.FAILED)
