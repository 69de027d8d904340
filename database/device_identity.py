"""Identity of a GPU in three levels, vendor, architecture and model, under the various names of drivers and browsers.

Drivers rename devices, and a chip has other names on Vulkan, Metal and D3D12 and in a browser, whose ``adapter.info``
often says no more than vendor and architecture. An `Alias` translates one name; those that come with wgtune are in
``aliases.json``, the user's own rows in the database win over them. Names of architectures follow Dawn's
``gpu_info.json``, which is what Chromium reports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..support.errors import DatabaseError, UsageError
from .schema.records import AliasLevel, DeviceInfo
from .schema.rows import alias as alias_table

_SHIPPED = Path(__file__).with_name("aliases.json")
_TRADEMARK = re.compile(r"\((?:r|tm|c)\)|[®™©]", re.IGNORECASE)
_UNKNOWN = frozenset({"", "unknown"})
_HINT = "see `wgtune db alias list`, and take one of them away with `wgtune db alias remove`"


@dataclass(frozen=True)
class Alias:
    """A device whose ``level`` is called ``name`` has this vendor, architecture and model; None leaves a part alone.

    A ``name`` that ends in ``*`` stands for every name that begins so; of several the longest counts, and a whole name
    before them all. An alias sets parts of its own level and coarser ones: a vendor's alias never says a model.
    """

    level: AliasLevel
    name: str
    vendor: str | None = None
    architecture: str | None = None
    model: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Identity:
    """A GPU by its names after all aliases, in lower case; "" for what nobody knows."""

    vendor: str
    architecture: str
    model: str

    def same_model(self, other: Identity) -> bool:
        """Return whether both are the same product.

        A family's name, such as "radeon graphics", carries no number and stands for many GPUs: then the architectures
        must be known and equal.
        """
        if not self.model or self.model != other.model or self.vendor != other.vendor:
            return False
        if (self.architecture and other.architecture) or not any(c.isdigit() for c in self.model):
            return self.same_architecture(other)
        return True

    def same_architecture(self, other: Identity) -> bool:
        """Return whether both are of one known architecture."""
        return bool(self.architecture) and self.architecture == other.architecture and self.same_vendor(other)

    def same_vendor(self, other: Identity) -> bool:
        """Return whether both are of one known vendor."""
        return bool(self.vendor) and self.vendor == other.vendor


class Aliases:
    """Aliases to look names up in; of two for one level and name the first counts."""

    def __init__(self, aliases: Iterable[Alias]) -> None:
        self._whole: dict[tuple[AliasLevel, str], Alias] = {}
        self._prefixes: dict[tuple[AliasLevel, str], Alias] = {}
        for one in aliases:
            name = normalized(one.name)
            found = self._prefixes if name.endswith("*") else self._whole
            found.setdefault((one.level, name.removesuffix("*")), one)

    def find(self, level: AliasLevel, name: str) -> Alias | None:
        """Return the alias for what is called ``name`` at ``level``."""
        if (found := self._whole.get((level, name))) is not None:
            return found
        lengths = range(len(name), 0, -1)
        return next((hit for n in lengths if (hit := self._prefixes.get((level, name[:n]))) is not None), None)


def resolve(device: DeviceInfo, aliases: Aliases) -> Identity:
    """Return the identity of ``device`` after all ``aliases``. Resolving the result again changes nothing.

    Raises:
        UsageError: aliases lead in a circle.
    """
    identity = Identity(*(_known(part) for part in (device.vendor, device.architecture, device.model)))
    seen = [identity]
    while True:
        identity = _pass(identity, aliases)
        if identity == seen[-1]:
            return identity
        if identity in seen:
            raise UsageError(f"the aliases of {device.key} form a circle: no name is final", _HINT)
        seen.append(identity)


def _pass(identity: Identity, aliases: Aliases) -> Identity:
    """Apply aliases, the finest level first, since its result may have an alias at a coarser level."""
    for level in (AliasLevel.MODEL, AliasLevel.ARCHITECTURE, AliasLevel.VENDOR):
        passed: list[str] = []
        while (found := aliases.find(level, name := getattr(identity, level.value))) is not None and name:
            if name in passed:
                circle = " → ".join([*passed, name])
                raise UsageError(f"aliases of the {level.value} lead in a circle: {circle}", _HINT)
            passed.append(name)
            identity = replace(identity, **_parts(found))
            if getattr(identity, level.value) == name:
                break
    return identity


def _parts(found: Alias) -> dict[str, str]:
    """Return the parts that an alias sets."""
    settable = {
        AliasLevel.VENDOR: (found.vendor, None, None),
        AliasLevel.ARCHITECTURE: (found.vendor, found.architecture, None),
        AliasLevel.MODEL: (found.vendor, found.architecture, found.model),
    }[found.level]
    named = zip(("vendor", "architecture", "model"), settable, strict=True)
    return {part: _known(value) for part, value in named if value is not None}


def normalized(name: str) -> str:
    """Return the name in lower case with single spaces, without trademark signs."""
    return " ".join(_TRADEMARK.sub("", name).lower().split())


def _known(name: str) -> str:
    name = normalized(name)
    return "" if name in _UNKNOWN else name


@cache
def shipped_aliases() -> tuple[Alias, ...]:
    """Return the aliases that come with wgtune.

    Raises:
        DatabaseError: the file is not what was shipped.
    """
    try:
        return tuple(_from_json(item) for item in json.loads(_SHIPPED.read_text("utf-8"))["aliases"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatabaseError(f"{_SHIPPED}: not wgtune's aliases: {error}", "install wgtune again") from error


def _from_json(item: Mapping[str, Any]) -> Alias:
    parts = {key: item[key] for key in ("vendor", "architecture", "model", "note") if key in item}
    return Alias(AliasLevel(item["level"]), item["name"], **parts)


def check_alias(one: Alias) -> Alias:
    """Return ``one`` in the form in which it is stored.

    Raises:
        UsageError: it has no name, says nothing, or something finer than its level.
    """
    name = normalized(one.name)
    if not name.removesuffix("*") or "*" in name[:-1]:
        raise UsageError(f"{one.name!r} is not a name for an alias", "give a whole name, or its beginning and one *")
    finer = {
        AliasLevel.VENDOR: ("architecture", "model"),
        AliasLevel.ARCHITECTURE: ("model",),
        AliasLevel.MODEL: (),
    }[one.level]
    for part in finer:
        if getattr(one, part) is not None:
            raise UsageError(f"an alias of the {one.level.value} cannot say the {part}", f"use --level {part}")
    if one.vendor is one.architecture is one.model is None:
        raise UsageError(f"the alias {name!r} says nothing", "add --vendor, --architecture or --model")
    parts = {part: normalized(value) for part in ("vendor", "architecture", "model") if (value := getattr(one, part))}
    return Alias(one.level, name, **parts, note=one.note)


def from_row(row: Any) -> Alias:
    """Convert a row of the table ``alias``."""
    return Alias(row.level, row.name, row.vendor, row.architecture, row.model, row.note)


ALIASES = alias_table.select().order_by(alias_table.c.level, alias_table.c.name)
"""Rows for `from_row`."""
