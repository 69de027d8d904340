"""A dispatch in slices of its grid: the same workgroups, each slice a dispatch of its own.

Workgroups of one dispatch share nothing but buffers and have no order, so that running some before others changes no
result. The shader adds the first workgroup of its slice, four words of a uniform buffer behind its other bindings, to
its own number within the slice.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from ...devices.program import Program, Shader

_GROUP = "group"
"""What `wgsl_printer` calls a workgroup's number in the grid."""

_IN_SLICE = "group_in_slice"
_FIRST = "first_group"


def slice_dispatches(program: Program, count: int) -> Program:
    """Return ``program`` with each dispatch in slices along the longest axis of its grid.

    Args:
        program: one that `emit_wgsl` made.
        count: the number of slices, at least 2; an axis of fewer workgroups gives one for each.
    """
    dispatches = []
    for dispatch in program.dispatches:
        axis = max(range(3), key=lambda i: dispatch.grid[i])
        slices = min(count, dispatch.grid[axis])
        bounds = [dispatch.grid[axis] * i // slices for i in range(slices + 1)]
        for start, end in pairwise(bounds):
            x, y, z = (end - start if i == axis else extent for i, extent in enumerate(dispatch.grid))
            first = tuple(start if i == axis else 0 for i in range(4))
            dispatches.append(replace(dispatch, grid=(x, y, z), uniform=first))
    bindings = {dispatch.shader: len(dispatch.buffers) for dispatch in program.dispatches}
    shaders = tuple(_with_first_group(shader, bindings[i]) for i, shader in enumerate(program.shaders))
    return replace(program, shaders=shaders, dispatches=tuple(dispatches))


def _with_first_group(shader: Shader, bindings: int) -> Shader:
    """Return the shader with a uniform behind its ``bindings`` that holds the first workgroup of a slice."""
    start = shader.source.index("@compute")
    head, body = shader.source[:start], shader.source[start:]
    parameter = f"@builtin(workgroup_id) {_GROUP} : vec3<u32>"
    if body.count(parameter) != 1 or "uniform" in head:
        raise ValueError(f"the shader {shader.entry} was not printed by wgsl_printer")
    signature, rest = body.replace(parameter, parameter.replace(_GROUP + " :", _IN_SLICE + " :")).split("{\n", 1)
    declared = f"@group(0) @binding({bindings}) var<uniform> {_FIRST} : vec4<u32>;\n"
    added = f"  let {_GROUP} = {_IN_SLICE} + {_FIRST}.xyz;\n"
    return replace(shader, source=f"{head.rstrip()}\n{declared}\n{signature}{{\n{added}{rest}")
