"""Writes docs/reference/commands.md: `python -m app.cli.commands_page > docs/reference/commands.md`."""

import sys
from collections.abc import Iterator
from typing import Any, Final

import typer

from app.cli.main import COMMANDS, app, load

WIDTH: Final = 100
_HEAD: Final = """# Commands

What `--help` says, all on one page. This file is made by `python -m app.cli.commands_page`; a test compares it.

Data goes to stdout, words go to stderr. Every command that reads takes `--json`. Bars appear on a terminal only.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed, or time ran out |
| 2 | wrong usage, wrong settings, or an intent that cannot be taken |
| 3 | a store or the exchange is unavailable; trying again is safe |
| 4 | something is in doubt or quarantined, and waits for a person |
| 130 | interrupted by Ctrl-C |

What is said to bad input stands in [bad-input.md](bad-input.md).
"""


def page() -> str:
    """Return the whole page."""
    root = typer.main.get_command(app)
    parts = [_HEAD, *_section("fillonce", root, None)]
    with root.context_class(root, info_name="fillonce", terminal_width=WIDTH) as context:
        for name in COMMANDS:
            parts += _section(f"fillonce {name}", load(name), context)
    return "\n".join(parts)


def _section(title: str, command: Any, parent: Any) -> Iterator[str]:
    name = title.rpartition(" ")[2]
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    with context:
        yield f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"
        if parent is None:
            return
        for inner_name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                yield from _section(f"{title} {inner_name}", inner, context)


if __name__ == "__main__":
    sys.stdout.write(page())
