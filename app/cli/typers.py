"""How every command of ours is set up."""

from typing import Any, Final

import typer

_EXAMPLE: Final = "\n\nExample:"


def plain_typer(**options: Any) -> typer.Typer:
    """Return a Typer without markup, boxes and decorated tracebacks: what it prints reads the same everywhere."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def keep_examples(command: Any) -> Any:
    """Have the help of `command` and its subcommands show examples line by line, not run together; return it."""
    if command.help:
        # A paragraph that begins with a backspace is not wrapped.
        command.help = command.help.replace(_EXAMPLE, f"\n\n\b{_EXAMPLE[1:]}")
    for inner in getattr(command, "commands", {}).values():
        keep_examples(inner)
    return command
