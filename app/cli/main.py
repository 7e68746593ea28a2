"""The command line: nouns, then verbs. One module per noun, imported when it is used.

To add a noun: write `app/cli/NOUN.py` with a `typer.Typer` called `app` (or a function), and name it in `COMMANDS`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from app.cli.typers import keep_examples, plain_typer


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """Where a command is found, and its line in `fillonce --help`."""

    module: str
    summary: str
    attribute: str = "app"


COMMANDS: Final[Mapping[str, Noun]] = MappingProxyType(
    {
        "demo": Noun(module="demo", attribute="demo", summary="Watch it work while workers are being killed."),
        "up": Noun(module="up", attribute="up", summary="Run the whole system here until Ctrl-C."),
        "enqueue": Noun(module="enqueue", summary="Journal intents and hand them to the queue."),
        "intents": Noun(module="intents", summary="List, show and wait for intents."),
        "positions": Noun(module="positions", summary="Show the positions of the books."),
        "ledger": Noun(module="ledger", summary="Show the ledger's balances and postings."),
        "pnl": Noun(module="pnl", summary="Show profit and loss by day."),
        "circuit": Noun(module="circuit", summary="Show circuit breakers, and override one for a while."),
        "kill-switch": Noun(module="kill_switch", summary="Stop what leaves this machine, and let it go on."),
        "flatten": Noun(module="flatten", attribute="flatten", summary="Close futures positions, reduce-only."),
        "audit": Noun(module="audit", summary="Show and verify the trail of every operator action."),
        "archive": Noun(
            module="archive", attribute="archive", summary="Make the journal small: pack what is long over."
        ),
        "worker": Noun(module="processes", attribute="worker", summary="Work on one queue."),
        "supervise": Noun(module="processes", attribute="supervise", summary="Run and watch all workers."),
        "reconcile": Noun(module="processes", attribute="reconcile", summary="Settle what is in doubt."),
        "sweep": Noun(module="processes", attribute="sweep", summary="Find what should be moving and is not."),
        "dashboard": Noun(module="processes", attribute="dashboard", summary="Show the queues in a browser."),
        "exporter": Noun(module="processes", attribute="exporter", summary="Serve metrics and status over HTTP."),
        "restore": Noun(module="restore", attribute="restore", summary="Make a restored journal fit to trade."),
        "retries": Noun(module="retries", summary="List and export the history of attempts."),
        "status": Noun(module="status", attribute="status", summary="Say how it stands."),
        "doctor": Noun(module="doctor", attribute="doctor", summary="Say whether it is safe to trade here."),
        "selftest": Noun(module="selftest", attribute="selftest", summary="Prove that every safety gate fires."),
        "config": Noun(module="config", summary="Check and show the settings."),
        "explain": Noun(module="explain", attribute="explain", summary="Say what an answer of the exchange means."),
        "paper-exchange": Noun(module="paper_exchange", attribute="paper_exchange", summary="Run the local exchange."),
    }
)


class LazyGroup(TyperGroup):
    """Lists commands by their summaries, and imports one when it is to run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        keep_examples(self)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base's signature
        """Return all names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base's signature
        """Return a command that has a summary and nothing to run."""
        noun = COMMANDS.get(cmd_name)
        return None if noun is None else TyperCommand(cmd_name, help=noun.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


def load(name: str) -> Any:
    """Import and return the command `name`."""
    noun = COMMANDS[name]
    module = import_module(f"app.cli.{noun.module}")
    found = getattr(module, noun.attribute)
    if not isinstance(found, typer.Typer):
        wrapped = plain_typer()
        settings = dict(getattr(module, "CONTEXT_SETTINGS", {}))
        wrapped.command(name, context_settings=settings)(found)
        found = wrapped
    command = typer.main.get_command(found)
    command.name = name
    return keep_examples(command)


app = plain_typer(cls=LazyGroup, no_args_is_help=True)


@app.callback()
def fillonce(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """Durable jobs for trading bots: per intent at most one order at the exchange, and none lost.

    Data goes to stdout, words go to stderr. Exit codes: 0 done; 1 failed; 2 wrong usage or invalid input; 3 a store or
    the exchange is unavailable; 4 something is in doubt or quarantined.

    Example:
      fillonce enqueue order --key first-1 --symbol BTCUSDT --side BUY --type MARKET --quantity 0.010
      fillonce intents wait first-1 --timeout 30s
    """
    if version:
        from importlib.metadata import version as installed_version  # lazy: reads files

        typer.echo(f"fillonce {installed_version('fillonce')}")
        raise typer.Exit


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        app(prog_name="fillonce")
    except Exception as error:
        from app.cli.failures import report  # lazy: only a command that failed has loaded the stores' libraries

        code = report(error)
        if code is None:
            raise
        sys.exit(code)
