"""A kernel in the form a GPU runs it: WGSL shaders and the dispatches between the caller's buffers.

One TensorIR kernel becomes one `Program`. A schedule may leave several shaders in it, with scratch buffers between
them. Programs are plain data: they travel to the worker process, into the database and into bundles as JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class Buffer:
    """What one binding of a dispatch refers to.

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
    """What a program asks of a WebGPU device.

    ``threads`` is the most invocations in one workgroup, ``workgroup_size`` the most per dimension,
    ``workgroup_bytes`` the most workgroup memory of any shader, ``storage_buffers`` the most storage bindings of one
    dispatch, ``binding_bytes`` the largest storage binding, and ``features`` the WebGPU feature names that must be
    enabled (``shader-f16``, ``subgroups``).
    """

    threads: int
    workgroup_size: tuple[int, int, int]
    workgroup_bytes: int
    storage_buffers: int
    binding_bytes: int
    features: tuple[str, ...] = ()

    def limits(self) -> dict[str, int]:
        """The same under the names of WebGPU's ``GPUSupportedLimits`` (W3C WebGPU, section 3.6.2)."""
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
    """All that one kernel needs: run ``dispatches`` in order. ``scratch`` gives each scratch buffer's bytes."""

    shaders: tuple[Shader, ...]
    dispatches: tuple[Dispatch, ...]
    scratch: tuple[int, ...]
    needs: Requirements

    def to_json(self) -> dict[str, Any]:
        """This program as JSON values."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the program's text: two schedules with equal digests are the same GPU program."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class NativeProgram:
    """``module`` is TVM's JSON of a module whose function ``main`` is scheduled, ``target`` TVM's target as JSON.

    ``dispatches`` names the kernels that a run launches, outermost loop first; one for a CPU. ``needs`` has what the
    schedule asks of a GPU's workgroups, as far as the loops tell; it is zero for a CPU.
    """

    module: str
    target: str
    dispatches: tuple[str, ...]
    needs: Requirements

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the scheduled code and its target: equal digests are the same program."""
        return hashlib.sha256(json.dumps([self.module, self.target]).encode()).hexdigest()


AnyProgram = Program | NativeProgram
"""What workers measure."""
