"""A scheduled kernel in executable form: WGSL shaders and their dispatches, or TensorIR for TVM's native targets.

One TensorIR kernel becomes one program. A schedule may produce several shaders, with scratch buffers between them.
Programs are plain data, which is sent to worker processes as JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class Buffer:
    """The buffer of one binding of a dispatch.

    ``kind`` is ``arg`` for the kernel's ``index``-th parameter, in the order of the TensorIR function's signature, or
    ``scratch`` for the program's ``index``-th scratch buffer.
    """

    kind: Literal["arg", "scratch"]
    index: int


@dataclass(frozen=True)
class Shader:
    """One WGSL module with one entry point; ``workgroup`` is the number of threads in x, y, z."""

    entry: str
    source: str
    workgroup: tuple[int, int, int]


@dataclass(frozen=True)
class Dispatch:
    """One launch of ``shaders[shader]``.

    ``buffers`` are storage bindings 0, 1, … of group 0; where ``uniform`` is not empty, a uniform buffer holding these
    32-bit words (as unsigned integers) follows as the last binding. ``grid`` is the number of workgroups in x, y, z.
    """

    shader: int
    buffers: tuple[Buffer, ...]
    grid: tuple[int, int, int]
    uniform: tuple[int, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """Limits and features that a program needs of a WebGPU device.

    Attributes:
        threads: Largest number of invocations in a workgroup.
        workgroup_size: Largest number per dimension x, y, z.
        workgroup_bytes: Largest workgroup memory of a shader.
        storage_buffers: Largest number of storage bindings of a dispatch.
        binding_bytes: Largest storage binding.
        features: WebGPU features to enable (``shader-f16``, ``subgroups``).
    """

    threads: int
    workgroup_size: tuple[int, int, int]
    workgroup_bytes: int
    storage_buffers: int
    binding_bytes: int
    features: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, needs: Mapping[str, Any]) -> Requirements:
        """Return the inverse of `dataclasses.asdict`; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            threads=_count(needs["threads"]),
            workgroup_size=_three(needs["workgroup_size"]),
            workgroup_bytes=_count(needs["workgroup_bytes"]),
            storage_buffers=_count(needs["storage_buffers"]),
            binding_bytes=_count(needs["binding_bytes"]),
            features=tuple(needs["features"]),
        )

    def limits(self) -> dict[str, int]:
        """Return the limits by the names of WebGPU's ``GPUSupportedLimits`` (W3C WebGPU, section 3.6.2)."""
        x, y, z = self.workgroup_size
        return {
            "maxComputeInvocationsPerWorkgroup": self.threads,
            "maxComputeWorkgroupSizeX": x,
            "maxComputeWorkgroupSizeY": y,
            "maxComputeWorkgroupSizeZ": z,
            "maxComputeWorkgroupStorageSize": self.workgroup_bytes,
            "maxStorageBuffersPerShaderStage": self.storage_buffers,
            "maxStorageBufferBindingSize": self.binding_bytes,
        }


@dataclass(frozen=True)
class Program:
    """One kernel in WGSL. ``dispatches`` run in order; ``scratch`` has the bytes of each scratch buffer."""

    shaders: tuple[Shader, ...]
    dispatches: tuple[Dispatch, ...]
    scratch: tuple[int, ...]
    needs: Requirements

    def to_json(self) -> dict[str, Any]:
        """Return this program as JSON values, from which the digest is computed."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Program:
        """Return the inverse of `to_json`; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            shaders=tuple(Shader(s["entry"], s["source"], _three(s["workgroup"])) for s in data["shaders"]),
            dispatches=tuple(
                Dispatch(
                    shader=_count(d["shader"]),
                    buffers=tuple(Buffer(b["kind"], _count(b["index"])) for b in d["buffers"]),
                    grid=_three(d["grid"]),
                    uniform=tuple(map(_count, d["uniform"])),
                )
                for d in data["dispatches"]
            ),
            scratch=tuple(map(_count, data["scratch"])),
            needs=Requirements.from_json(data["needs"]),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the program; schedules with equal digests are the same GPU program."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class NativeProgram:
    """One kernel for TVM's native targets, compiled in the worker's child process.

    Attributes:
        module: TVM's JSON of a module whose function ``main`` is scheduled.
        target: TVM's target as JSON.
        dispatches: Names of the kernels that a run launches, in order; one for a CPU.
        needs: Requirements on a GPU's workgroups, as far as the loops show; zeros for a CPU.
    """

    module: str
    target: str
    dispatches: tuple[str, ...]
    needs: Requirements

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the scheduled code and its target; equal digests are the same program."""
        return hashlib.sha256(json.dumps([self.module, self.target]).encode()).hexdigest()


AnyProgram = Program | NativeProgram
"""A program that workers measure."""


def _count(value: Any) -> int:
    # Comparing with limits would let NaN pass: only integers count.
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _three(values: Any) -> tuple[int, int, int]:
    x, y, z = map(_count, values)
    return x, y, z
