"""Column types that keep money exact on both databases."""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Numeric, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.money import wire

Millis = BigInteger
"""Milliseconds since the epoch, UTC."""


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal that survives unchanged: NUMERIC without a scale on PostgreSQL, plain text on SQLite.

    SQLite has no exact number wider than 64 bits, and SQLAlchemy's Numeric goes through a float there.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database at hand."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Numeric(asdecimal=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Refuse what is not a finite Decimal, and write the rest exactly."""
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"money is Decimal, not {type(value).__name__}")
        text = wire(value)
        return value if dialect.name == "postgresql" else text

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Return the exact Decimal."""
        del dialect
        if value is None or isinstance(value, Decimal):
            return value
        return Decimal(value)
