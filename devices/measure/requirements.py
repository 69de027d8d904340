"""Checks whether a device can run a WGSL program, made before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..device import Device
from ..program import AnyProgram, Program
from .case_file import CaseError


class UnsupportedProgram(Exception):
    """The device cannot run a program; the text says which requirement it does not meet."""


def accept_wgsl(device: Device, program: AnyProgram) -> Program:
    """Return ``program``; raises UnsupportedProgram where it is native code, or exceeds the limits of ``device``."""
    if not isinstance(program, Program):
        raise UnsupportedProgram(f"{device.key} runs WGSL, and the program is native code")
    missing = [name for name in program.needs.features if name not in device.features]
    if missing:
        raise UnsupportedProgram(f"the program needs the WebGPU feature {', '.join(missing)}, which {device.key} lacks")
    for name, needed in program.needs.limits().items():
        if needed > device.limits[name]:
            raise UnsupportedProgram(
                f"the program needs {name} = {needed}, and {device.key} offers {device.limits[name]}"
            )
    most = device.limits["maxComputeWorkgroupsPerDimension"]
    for dispatch in program.dispatches:
        if max(dispatch.grid) > most:
            raise UnsupportedProgram(f"the grid {dispatch.grid} exceeds maxComputeWorkgroupsPerDimension = {most}")
    return program


def check_buffers(device: Device, program: Program, case: Path, sizes: Mapping[int, int]) -> None:
    """Check the buffers that ``program`` binds.

    Args:
        device: The device that would hold them.
        program: The program, with the sizes of its scratch buffers.
        case: Path of the case file, for the message.
        sizes: Bytes of each parameter of the case, by index.

    Raises:
        CaseError: The case lacks a parameter of the program.
        UnsupportedProgram: A buffer is larger than ``device`` can allocate or bind.
    """
    for dispatch in program.dispatches:
        for buffer in dispatch.buffers:
            if buffer.kind == "arg" and buffer.index not in sizes:
                raise CaseError(f"the case {case} lacks parameter {buffer.index} of the program")
    for kind, buffers in (("parameter", sizes), ("scratch buffer", dict(enumerate(program.scratch)))):
        for index, nbytes in buffers.items():
            for name in ("maxStorageBufferBindingSize", "maxBufferSize"):
                most = device.limits[name]
                if nbytes > most:
                    raise UnsupportedProgram(
                        f"{kind} {index} takes {nbytes} bytes, and {device.key}'s {name} is {most}"
                    )
