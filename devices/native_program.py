"""A kernel as TVM compiles it to native code: the scheduled TensorIR itself, and the target to build it for.

Plain data, as `wgtune.devices.program.Program` is for WGSL. It is built in the worker's child process.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .program import Program, Requirements


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

    def to_json(self) -> dict[str, Any]:
        """This program as JSON values."""
        return {
            "module": self.module,
            "target": self.target,
            "dispatches": list(self.dispatches),
            "needs": asdict(self.needs),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> NativeProgram:
        """The inverse of `to_json`; raises KeyError or TypeError on data of another shape."""
        needs = {
            **data["needs"],
            "workgroup_size": tuple(data["needs"]["workgroup_size"]),
            "features": tuple(data["needs"]["features"]),
        }
        return NativeProgram(data["module"], data["target"], tuple(data["dispatches"]), Requirements(**needs))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the scheduled code and its target: equal digests are the same program."""
        return hashlib.sha256(json.dumps([self.module, self.target]).encode()).hexdigest()


AnyProgram = Program | NativeProgram
"""What workers measure."""


def program_from_json(data: dict[str, Any]) -> AnyProgram:
    """The inverse of either program's `to_json`; raises KeyError or TypeError on data of another shape."""
    return NativeProgram.from_json(data) if "module" in data else Program.from_json(data)
