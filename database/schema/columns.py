"""Column types that refuse values which this program cannot have written.

SQLite keeps any value in any column, and a damaged or foreign file may hold anything. What comes out is therefore
checked where it is read, so that the rest of wgtune may rely on the types.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from enum import Enum
from numbers import Real
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

MAX_TEXT_BYTES = 64 << 20
"""The longest compressed text in bytes of UTF-8: a few bytes of zlib can expand to gigabytes."""

BigId = BigInteger().with_variant(Integer, "sqlite")
"""Trial ids: 64 bits everywhere. SQLite's INTEGER already is, and only that word makes a primary key its row id."""


class BadValue(ValueError):
    """A value in the database that this program would not have written, or will not write."""


class _Checked(TypeDecorator[Any]):
    """A type whose results are converted under guard: whatever goes wrong is a `BadValue`."""

    impl: Any = Text
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Return the type's own processor, with its errors turned into `BadValue`."""
        convert = super().result_processor(dialect, coltype)
        if convert is None:
            return None

        def guarded(value: Any) -> Any:
            try:
                return convert(value)
            except BadValue:
                raise
            except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, zlib.error) as error:
                raise BadValue(f"{shown(value)} cannot be read: {error}") from None

        return guarded


class Utc(_Checked):
    """An aware datetime, kept as UTC without an offset: SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes (ValueError): their moment is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the datetime with UTC as its time zone."""
        return None if value is None else value.replace(tzinfo=timezone.utc)


class Compressed(_Checked):
    """Text kept as zlib bytes: traces repeat themselves, and there may be a million of them."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """UTF-8, then zlib. Raises BadValue where the text is longer than `MAX_TEXT_BYTES`."""
        if value is None:
            return None
        data = value.encode()
        if len(data) > MAX_TEXT_BYTES:
            raise BadValue(f"a text of {len(data):,} bytes is longer than the {MAX_TEXT_BYTES:,} that are kept")
        return zlib.compress(data)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Decompress to text; never more than `MAX_TEXT_BYTES`, whatever the bytes claim."""
        return None if value is None else inflate(value).decode()


def inflate(data: bytes) -> bytes:
    """Decompress ``data``. Raises BadValue where it is no whole zlib stream, or longer than the limit."""
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(data, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise BadValue(f"a compressed text is damaged: {error}") from None
    if len(whole) > MAX_TEXT_BYTES:
        raise BadValue(f"a compressed text of {len(data):,} bytes unfolds to more than {MAX_TEXT_BYTES:,}")
    if not stream.eof or stream.unused_data:
        raise BadValue("a compressed text is cut short, or goes on behind its end")
    return whole


class Member(_Checked):
    """A member of an enumeration, kept as its value; checked here, so that adding one needs no ALTER."""

    impl = String(24)
    cache_ok = True

    def __init__(self, kind: type[Enum]) -> None:
        super().__init__(24)
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Accept members, and values of members."""
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: Any, dialect: Dialect) -> Enum | None:
        """Return the member."""
        if value is None:
            return None
        member = self.kind._value2member_map_.get(value) if isinstance(value, str) else None
        if member is None:
            raise BadValue(f"{shown(value)} is no {self.kind.__name__}")
        return member


class Json(_Checked):
    """JSON that passes ``fits``; ``what`` names in messages what it should be."""

    impl = JSON
    cache_ok = True

    def __init__(self, what: str, fits: Callable[[Any], bool]) -> None:
        super().__init__()
        self.what = what
        self.fits = fits

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value, unchanged."""
        if not self.fits(value):
            raise BadValue(f"{shown(value)} is not {self.what}")
        return value


def is_object(value: Any) -> bool:
    """Return a column type for a JSON object."""
    return isinstance(value, dict)


def is_words(value: Any) -> bool:
    """Return a column type for a JSON object of strings."""
    return isinstance(value, dict) and all(isinstance(word, str) for word in value.values())


def is_quantities(value: Any) -> bool:
    """Return a column type for a JSON object of finite numbers, none below 0."""
    return isinstance(value, dict) and all(_is(Real, number) and 0 <= number < math.inf for number in value.values())


def is_numbers(value: Any) -> bool:
    """Return a column type for a JSON array of numbers."""
    return isinstance(value, list) and all(_is(Real, number) for number in value)


def is_indices(value: Any) -> bool:
    """Return a column type for a JSON array of whole numbers."""
    return isinstance(value, list) and all(_is(int, number) for number in value)


def is_params(value: Any) -> bool:
    """Return a column type for a JSON array of ``[name, shape, dtype]``."""
    return isinstance(value, list) and all(
        isinstance(param, list)
        and len(param) == 3
        and isinstance(param[0], str)
        and is_indices(param[1])
        and isinstance(param[2], str)
        for param in value
    )


def shown(value: Any) -> str:
    """Return a value as messages quote it, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def sqlite_types() -> Mapping[type[TypeEngine[Any]], type[TypeEngine[Any]]]:
    """For a SQLite dialect's ``colspecs``: plain types that check what they read, as other servers do by themselves."""
    return {
        Integer: _Integer,
        BigInteger: _BigInteger,
        Double: _Double,
        String: _String,
        Text: _Text,
        LargeBinary: _LargeBinary,
        Boolean: _Boolean,
    }


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _must_be(kind: type, what: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value is None or isinstance(value, kind):
            return value
        raise BadValue(f"{shown(value)} is not {what}")

    return check


class _Integer(Integer):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(int, "a whole number")


class _BigInteger(BigInteger):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(int, "a whole number")


class _Double(Double[float]):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(float, "a number")


class _Boolean(Boolean):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], bool | None]:
        def convert(value: Any) -> bool | None:
            if value is None or (isinstance(value, int) and value in (0, 1)):
                return None if value is None else bool(value)
            raise BadValue(f"{shown(value)} is neither true nor false")

        return convert


class _String(String):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(str, "text")


class _Text(Text):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(str, "text")


class _LargeBinary(LargeBinary):
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _must_be(bytes, "bytes")
