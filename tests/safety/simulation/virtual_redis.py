"""Redis by virtual time: strings with an expiry, and the real Lua of this project run by a real Lua 5.1.

`test_protocol_simulation.py` compares it with a real server, so that it cannot drift from what it stands in for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type  # type: ignore[import-untyped]

from app.clock import Clock

Argument = str | bytes | int


class VirtualRedis:
    """The commands that guards, gates and kill switch use. Every key is a string."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[bytes, tuple[bytes, int | None]] = {}
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._wrap: Any = self._lua.eval(
            b"function(source, call) redis = {call = call}"
            b" local run = assert(loadstring(source))"
            b" return function(keys, argv) KEYS = keys ARGV = argv return run() end end"
        )
        self._scripts: dict[str, Any] = {}

    def script(self, source: str) -> Callable[[Sequence[Argument], Sequence[Argument]], Any]:
        """Return a function that runs `source` with keys and arguments."""
        if source not in self._scripts:
            self._scripts[source] = self._wrap(source.encode(), self._call)
        run = self._scripts[source]

        def start(keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
            tables = [self._lua.table_from([_bytes(item) for item in items]) for items in (keys, args)]
            return _from_lua(run(*tables))

        return start

    def get(self, key: Argument) -> bytes | None:
        """Return the value of a key that has not expired."""
        name = _bytes(key)
        value, expires_at_ms = self._values.get(name, (None, None))
        if expires_at_ms is not None and expires_at_ms <= self._clock.now_ms():
            del self._values[name]
            return None
        return value

    def set(self, key: Argument, value: Argument, *, px: int | None = None) -> None:
        """Set a value, for `px` ms or for good."""
        self._values[_bytes(key)] = (_bytes(value), None if px is None else self._clock.now_ms() + px)

    def pttl(self, key: Argument) -> int:
        """Return how many ms a key still lives: -1 for ever, -2 not at all."""
        if self.get(key) is None:
            return -2
        expires_at_ms = self._values[_bytes(key)][1]
        return -1 if expires_at_ms is None else expires_at_ms - self._clock.now_ms()

    def delete(self, key: Argument) -> int:
        """Forget a key; return whether it was there."""
        was_there = self.get(key) is not None
        self._values.pop(_bytes(key), None)
        return int(was_there)

    def flushall(self) -> None:
        """Forget everything."""
        self._values.clear()

    def contents(self) -> Mapping[bytes, bytes]:
        """Return all that has not expired."""
        return {key: value for key in list(self._values) if (value := self.get(key)) is not None}

    def _call(self, command: bytes, *raw: Argument | float) -> Any:
        args = [_bytes(int(item) if isinstance(item, float) else item) for item in raw]
        match [command.upper(), *args]:
            case [b"GET", key]:
                value = self.get(key)
                return False if value is None else value
            case [b"SET", key, value, b"PX", ttl]:
                self.set(key, value, px=int(ttl))
            case [b"SET", key, value, b"EX", ttl]:
                self.set(key, value, px=int(ttl) * 1000)
            case [b"PTTL", key]:
                return self.pttl(key)
            case [b"DEL", key]:
                return self.delete(key)
            case [b"PEXPIRE", key, ttl]:
                value = self.get(key)
                if value is None:
                    return 0
                self.set(key, value, px=int(ttl))
                return 1
            case other:
                raise NotImplementedError(f"the stand-in does not know {other}")
        return self._lua.table_from({b"ok": b"OK"})


def _bytes(item: Argument) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def _from_lua(value: Any) -> Any:
    """Return what a client would see: tables become lists up to their first nil, numbers lose their fraction."""
    if lua_type(value) == "table":
        items: list[Any] = []
        while (item := value[len(items) + 1]) is not None:
            items.append(_from_lua(item))
        return items
    return int(value) if isinstance(value, float) else value
