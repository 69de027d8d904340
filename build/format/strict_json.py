"""Strict types for the JSON documents of a bundle: what they have in common, and reading and writing one.

Strict means that a value has the type that the schema names: no text for a number, no 1 for true, no 1.0 for an
integer. Fields that the schema does not name are ignored, so that a later version can add some.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ...support.errors import BundleError

STRICT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)
"""Configuration of every type in a document."""

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A whole number that JavaScript holds exactly."""

T = TypeVar("T")


def read_document(adapter: TypeAdapter[T], data: bytes, damaged: str) -> T:
    """Parse JSON and check it against the type of ``adapter``.

    Args:
        adapter: the document's type.
        data: JSON text in UTF-8.
        damaged: beginning of the error message, such as ``manifest.json is damaged``.

    Raises:
        BundleError: the text is not JSON, or a field is missing or has another type; the message names the field.
    """
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise not_json(damaged.split()[0], first["ctx"]["error"]) from None
        raise BundleError(f"{damaged}: {_described(first)}", "build the bundle again") from None


def write_document(adapter: TypeAdapter[T], document: T) -> bytes:
    """Return ``document`` as it is written into a bundle: compact JSON in UTF-8, without NaN or infinities."""
    data = adapter.dump_python(document, mode="json", by_alias=True)
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8") + b"\n"


def not_json(name: str, why: object) -> BundleError:
    """Return the error for a file ``name`` that is not JSON."""
    return BundleError(f"{name} is not JSON: {why}", "copy or build the bundle again")


def _described(error: Any) -> str:
    """One error of pydantic's as ``field: what is wrong, not value``."""
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    said = f"{field}: {error['msg']}" if field else error["msg"]
    value = error["input"]
    if error["type"] != "missing" and (value is None or isinstance(value, (str, int, float))):
        said += f", not {value!r:.60}"
    return said
