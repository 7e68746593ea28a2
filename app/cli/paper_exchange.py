"""`fillonce paper-exchange`: the local exchange as a process of its own."""

from types import MappingProxyType
from typing import Annotated, Final

import typer

CONTEXT_SETTINGS: Final = MappingProxyType({"ignore_unknown_options": True})


def paper_exchange(
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTIONS OF THE EXCHANGE]", help="--options lists them.")
    ] = None,
    *,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 takes a free one.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Folder of its log: it goes on where it ended. Under FILLONCE_HOME if not given."),
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", help="Of the price walk.")] = None,
    list_options: Annotated[bool, typer.Option("--options", help="List all options of the exchange and end.")] = False,
) -> None:
    """Run the local exchange: HTTP on loopback, with the shapes and semantics of Binance USD-M futures and Spot.

    Example:
      fillonce paper-exchange --port 8900 --data /tmp/paper
    """
    import os  # lazy: --help needs nothing of this

    from app.cli.output import say
    from app.cli.processes import become
    from app.embedded.home import prepare_home, resolve_home

    if list_options:
        become("app.exchange.paper", ["--help"])
    if data is None:
        data = str(prepare_home(resolve_home(os.environ)) / "paper-exchange")
        say(f"data: {data} (FILLONCE_HOME)")
    given = {"--port": None if port is None else str(port), "--data": data, "--seed": seed}
    arguments = [word for name, value in given.items() if value is not None for word in (name, value)]
    become("app.exchange.paper", [*arguments, *(options or [])])
