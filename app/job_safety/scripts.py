"""Loads the Lua scripts that lie beside the code: one file, one operation."""

from importlib import resources


def source(name: str, *, package: str = "app.job_safety") -> str:
    """Return the text of `lua/{name}.lua` in `package`."""
    return resources.files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
