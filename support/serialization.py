"""Dataclasses as JSON values and back: between the processes of a session, and in the JSON that commands print."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter


def to_plain(value: Any, without: Sequence[str] = (), finite: bool = False) -> Any:
    """Return ``value`` in dicts, lists, strings, numbers, booleans and None.

    Dataclasses become objects, enumerations their values, sets sorted lists, moments ISO 8601, paths strings.

    Args:
        value: The value.
        without: Fields to leave out of every dataclass in it.
        finite: Whether NaN and infinity, for which JSON has no number, become None.

    Raises:
        TypeError: The value, or one in it, has no JSON form.
    """

    def convert(part: Any) -> Any:
        if isinstance(part, Enum):
            return part.value
        if isinstance(part, Path):
            return str(part)
        if isinstance(part, float) and finite and not math.isfinite(part):
            return None
        if part is None or isinstance(part, bool | int | float | str):
            return part
        if isinstance(part, datetime):
            return part.isoformat(timespec="seconds")
        if is_dataclass(part) and not isinstance(part, type):
            return {f.name: convert(getattr(part, f.name)) for f in fields(part) if f.name not in without}
        if isinstance(part, Mapping):
            return {str(convert(key)): convert(item) for key, item in part.items()}
        if isinstance(part, AbstractSet):
            return sorted(convert(item) for item in part)
        if isinstance(part, Sequence):
            return [convert(item) for item in part]
        raise TypeError(f"{type(part).__name__} has no JSON form")

    return convert(value)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON that any program can read: NaN and infinity are None. Raises TypeError as `to_plain`."""
    return to_plain(value, finite=True)


def from_plain(kind: Any, data: Any) -> Any:
    """Invert `to_plain` for a value of type ``kind``, a class or a type hint.

    Raises ValueError for data of another shape; a number in quotes is no number.
    """
    return _adapter(kind).validate_json(json.dumps(data), strict=True)


def restored_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for the fields of the dataclass ``kind`` that ``data`` names.

    Raises KeyError for a name that is no field, ValueError for a value of another type.
    """
    hints = typing.get_type_hints(kind)
    return {name: from_plain(hints[name], value) for name, value in data.items()}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
