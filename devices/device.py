"""Description of one GPU: identity, limits and features. Plain data that is sent as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..support.enums import Runtime


@dataclass(frozen=True)
class Device:
    """One GPU under one graphics API.

    Attributes:
        key: Identifier in the database (``vulkan:nvidia-h200``): API and model, without a driver version.
        backend: Graphics API: ``vulkan``, ``metal``, ``d3d12``, ``gl``, ``cuda``, ``llvm`` or ``browser``.
        vendor: Short lower-case name.
        architecture: Chip or architecture; "" where unknown.
        model: Name without trademarks and driver versions.
        driver: The driver's description of itself.
        adapter_type: ``discrete``, ``integrated``, ``virtual``, ``cpu`` or ``unknown``.
        software: Whether a CPU does the work.
        limits: Bytes or counts, by WebGPU's names.
        features: WebGPU's names.
        runtime: The way of reaching the device.
        index: Number among the devices of this runtime and backend, in the order that the drivers report them.
    """

    key: str
    backend: str
    vendor: str
    architecture: str
    model: str
    driver: str
    adapter_type: str
    software: bool
    limits: dict[str, int]
    features: tuple[str, ...]
    runtime: Runtime
    index: int

    def __hash__(self) -> int:
        return hash((self.key, self.runtime, self.index))

    def to_json(self) -> dict[str, Any]:
        """Return this device as JSON values."""
        return {**asdict(self), "features": list(self.features), "runtime": self.runtime.value}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Device:
        """Return the inverse of `to_json`; raises TypeError or ValueError on data of another shape."""
        return Device(**{**data, "features": tuple(data["features"]), "runtime": Runtime(data["runtime"])})
