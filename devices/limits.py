"""Tiers: named sets of WebGPU limits and features that a bundle may require of browsers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..support.errors import UsageError
from .program import Requirements

MIB = 1 << 20


@dataclass(frozen=True)
class Tier:
    """Limits (bytes or counts), by WebGPU's names, of every browser of this tier, and features that some have.

    Programs need a feature where their kernel does, whatever the schedule: those of half floats need ``shader-f16``.
    """

    name: str
    limits: dict[str, int]
    features: frozenset[str] = frozenset()

    def violations(self, needs: Requirements) -> list[str]:
        """Return a sentence for each requirement in ``needs`` that exceeds this tier; empty where all are met."""
        found = [
            f"{name} {value} exceeds {self.limits[name]}"
            for name, value in needs.limits().items()
            if value > self.limits[name]
        ]
        found += [f"feature {f} is not in the tier" for f in needs.features if f not in self.features]
        return found

    def fits(self, needs: Mapping[str, Any]) -> bool:
        """Return whether a record's stored requirements are met; needs of another shape (a damaged file) are not."""
        try:
            return not self.violations(Requirements.from_json(needs))
        except (KeyError, TypeError, ValueError):
            return False


_FEATURES = frozenset({"shader-f16"})

_DEFAULT = {
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupSizeX": 256,
    "maxComputeWorkgroupSizeY": 256,
    "maxComputeWorkgroupSizeZ": 64,
    "maxComputeWorkgroupStorageSize": 16384,
    "maxComputeWorkgroupsPerDimension": 65535,
    "maxStorageBuffersPerShaderStage": 8,
    "maxStorageBufferBindingSize": 128 * MIB,
    "maxBufferSize": 256 * MIB,
}
"""Limits of every WebGPU device (W3C WebGPU, section 3.6.2, column "Default")."""

TIERS = {
    "default": Tier("default", _DEFAULT, _FEATURES),
    "desktop": Tier(
        "desktop",
        {
            **_DEFAULT,
            "maxComputeWorkgroupStorageSize": 32768,
            "maxStorageBuffersPerShaderStage": 10,
            "maxStorageBufferBindingSize": 1024 * MIB,
            "maxBufferSize": 1024 * MIB,
        },
        _FEATURES,
    ),
}
"""``default`` is met wherever WebGPU runs; ``desktop`` by desktop browsers on a discrete or Apple GPU."""


def find_tier(name: str) -> Tier:
    """Return the tier called ``name``; raises UsageError, which names the known ones."""
    try:
        return TIERS[name]
    except KeyError:
        raise UsageError(f"there is no tier {name!r}", f"known tiers: {', '.join(TIERS)}") from None
