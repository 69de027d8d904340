"""Tiers: named sets of WebGPU limits and features that a browser must offer to run what is built for them."""

from __future__ import annotations

from dataclasses import dataclass

from ..support.errors import UsageError
from .program import Requirements

MIB = 1 << 20


@dataclass(frozen=True)
class Tier:
    """``limits`` by WebGPU name (bytes or counts), ``features`` by WebGPU name."""

    name: str
    limits: dict[str, int]
    features: frozenset[str] = frozenset()

    def violations(self, needs: Requirements) -> list[str]:
        """What of ``needs`` this tier does not grant, one sentence each; empty where it fits."""
        found = [
            f"{name} {value} exceeds {self.limits[name]}"
            for name, value in needs.limits().items()
            if value > self.limits[name]
        ]
        found += [f"feature {f} is not in the tier" for f in needs.features if f not in self.features]
        return found


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
"""The limits that every WebGPU device grants (W3C WebGPU, section 3.6.2, column "Default")."""

TIERS = {
    "default": Tier("default", _DEFAULT),
    "desktop": Tier(
        "desktop",
        {
            **_DEFAULT,
            "maxComputeWorkgroupStorageSize": 32768,
            "maxStorageBuffersPerShaderStage": 10,
            "maxStorageBufferBindingSize": 1024 * MIB,
            "maxBufferSize": 1024 * MIB,
        },
    ),
}
"""``default`` runs wherever WebGPU does; ``desktop`` is what desktop browsers offer on a discrete or Apple GPU."""


def find_tier(name: str) -> Tier:
    """The tier called ``name``; raises UsageError naming the known ones."""
    try:
        return TIERS[name]
    except KeyError:
        raise UsageError(f"there is no tier {name!r}", f"known tiers: {', '.join(TIERS)}") from None
