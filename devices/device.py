"""A GPU as its owner would name it, with what it offers: plain data that travels as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..support.enums import Runtime


@dataclass(frozen=True)
class Device:
    """One GPU under one graphics API.

    ``key`` identifies it in the database (``vulkan:nvidia-h200``): API and model, no driver version. ``driver`` is
    the driver's description of itself. ``limits`` (bytes or counts) and ``features`` stand under WebGPU's names.
    ``index`` numbers the devices of this runtime and backend in the order that the drivers report them.
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
        """This device as JSON values."""
        return {**asdict(self), "features": list(self.features), "runtime": self.runtime.value}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Device:
        """The inverse of `to_json`; raises TypeError or ValueError on data of another shape."""
        return Device(**{**data, "features": tuple(data["features"]), "runtime": Runtime(data["runtime"])})
