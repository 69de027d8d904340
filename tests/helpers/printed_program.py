"""A program as wgsl_printer writes one: each workgroup copies an element."""

from __future__ import annotations

from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader

SOURCE = """@group(0) @binding(0) var<storage, read> b0 : array<f32, 4>;
@group(0) @binding(1) var<storage, read_write> b1 : array<f32, 4>;

@compute @workgroup_size(1, 1, 1)
fn main_kernel(@builtin(local_invocation_id) thread : vec3<u32>, @builtin(workgroup_id) group : vec3<u32>) {
  b1[group.x] = b0[group.x];
}
"""
NEEDS = Requirements(1, (1, 1, 1), 0, 2, 16)


def program(*grids: tuple[int, int, int]) -> Program:
    buffers = (Buffer("arg", 0), Buffer("arg", 1))
    dispatches = tuple(Dispatch(0, buffers, grid) for grid in grids)
    return Program((Shader("main_kernel", SOURCE, (1, 1, 1)),), dispatches, (), NEEDS)
