"""Loads the Lua scripts that lie beside the code: one file, one operation.

A script may name small parts in its header (`-- Uses lib_clock lib_circuit`). Each is a file too, holds one local
function, may use others, and is put before whatever uses it, once. One of another package is named with it
(`app.job_safety:lib_guard`).
"""

import re
from importlib import resources
from typing import Final

_USES: Final = re.compile(r"^-- Uses ((?:(?:[\w.]+:)?lib_\w+ ?)+)$", flags=re.MULTILINE)


def source(name: str, *, package: str = "app.job_safety") -> str:
    """Return the text of `lua/{name}.lua` in `package`, after the parts that it uses."""
    parts: dict[tuple[str, str], str] = {}
    _collect(name, package, parts)
    return "\n".join(parts.values())


def _collect(name: str, package: str, parts: dict[tuple[str, str], str]) -> None:
    text = resources.files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    for names in _USES.findall(text):
        for used in names.split():
            where, _, part = used.rpartition(":")
            if (where or package, part) not in parts:
                _collect(part, where or package, parts)
    parts[package, name] = text
