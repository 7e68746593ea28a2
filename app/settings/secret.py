"""Values that never print: redacted by type, so that no log line, error or dump can show one by accident."""

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

HIDDEN = "***"

_SECRET_OPTION = re.compile(r"(?i)((?:[a-z_]*(?:password|passwd|secret|token))=)[^&]*")


class Secret:
    """A credential. `reveal` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a secret cannot be empty")
        self._text = text

    def reveal(self) -> str:
        """Return the text itself: for the one call that needs it, never to be stored or logged."""
        return self._text

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Secret) and other.reveal() == self._text

    def __hash__(self) -> int:
        return hash((type(self), self._text))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate from text or an instance; serialize as what `str` shows."""
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.to_string_ser_schema(),
        )


class StoreUrl(Secret):
    """The URL of a store. It prints with its password hidden, because people need to see which store it is."""

    __slots__ = ()

    def __str__(self) -> str:
        scheme, mark, rest = self._text.partition("://")
        # Everything up to the last @ counts as user and password: an unescaped @ in a password must not show its tail.
        userinfo, at, place = rest.rpartition("@")
        hidden_place = _SECRET_OPTION.sub(lambda option: f"{option[1]}{HIDDEN}", place)
        return f"{scheme}{mark}{HIDDEN if userinfo else ''}{at}{hidden_place}"

    @property
    def has_password(self) -> bool:
        """Whether the text holds something that `str` hides."""
        return str(self) != self._text
