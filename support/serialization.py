"""Frozen dataclasses as JSON values and back by their type hints, for what travels between a session's processes."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any


def to_plain(value: Any, without: Sequence[str] = ()) -> Any:
    """``value`` as JSON values; a dataclass becomes an object of its fields but those named in ``without``.

    Raises TypeError for what has no JSON form.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.name not in without}
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Sequence):
        return [to_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_plain(kind: Any, data: Any) -> Any:
    """The inverse of `to_plain` for a value of type ``kind``, a class or a type hint.

    Raises TypeError, ValueError or KeyError for data of another shape.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or origin is typing.Literal:
        return data
    if origin in (types.UnionType, typing.Union):
        if data is None and types.NoneType in arguments:
            return None
        return from_plain(next(argument for argument in arguments if argument is not types.NoneType), data)
    if is_dataclass(kind):
        make: Any = kind
        return make(**restored_fields(make, data))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(from_plain(arguments[0], item) for item in data)
        return tuple(from_plain(argument, item) for argument, item in zip(arguments, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {from_plain(arguments[0], key): from_plain(arguments[1], item) for key, item in data.items()}
    if isinstance(origin, type) and issubclass(origin, AbstractSet):
        return frozenset(from_plain(arguments[0], item) for item in data)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [from_plain(arguments[0], item) for item in data]
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(data)
    return data


def restored_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the fields of the dataclass ``kind`` that ``data`` names, as its type hints say."""
    hints = _hints(kind)
    return {name: from_plain(hints[name], value) for name, value in data.items()}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
