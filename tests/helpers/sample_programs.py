"""Small programs that behave well or badly, over parameters 0 (input x) and 1 (output y) of 1024 float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wgtune.devices.measure.job import MeasureJob, Sampling
from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader

SIZE = 1024
THREADS = 64
_HEAD = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
"""


def elementwise(body: str, groups: int = SIZE // THREADS) -> Program:
    """One shader with ``id`` in scope, one dispatch."""
    return Program(
        shaders=(Shader("main", _HEAD + body + "}", (THREADS, 1, 1)),),
        dispatches=(Dispatch(0, (Buffer("arg", 0), Buffer("arg", 1)), (groups, 1, 1)),),
        scratch=(),
        needs=Requirements(THREADS, (THREADS, 1, 1), 0, 2, SIZE * 4),
    )


DOUBLING = elementwise("y[id.x] = 2.0 * x[id.x];")
TRIPLING = elementwise("y[id.x] = 3.0 * x[id.x];")
NANS = elementwise("y[id.x] = sqrt(x[id.x] - 2.0);")
SILENT = elementwise("if (id.x < 512u) { y[id.x] = 2.0 * x[id.x]; }")
BROKEN = elementwise("y[id.x] = oops(;")
# Naga's parser follows nested expressions on its own stack, and runs out of it.
CRASHING = elementwise(f"y[id.x] = {'-(' * 100_000}1.0{')' * 100_000};")
# llvmpipe ends every invocation after 65,535 loop iterations, so no single one hangs there; this many of them take
# minutes. Nothing of this can be computed ahead, for each step depends on memory.
ENDLESS = elementwise(
    "var s = 0.0; for (var j = 0u; j < 60000u; j++) { s = s * 0.5 + x[(j + id.x) % 1024u]; } y[id.x] = s;", groups=65535
)
# llvmpipe lays the array out once per lane, and needs minutes to compile that.
SLOW_TO_COMPILE = elementwise(
    "var a: array<f32, 10000000>;"
    "for (var k = 0u; k < 50000u; k++) { a[(k * 7919u + id.x) % 10000000u] = f32(k); }"
    "y[id.x] = a[(id.x * 977u) % 10000000u];"
)

QUICK = Sampling(min_samples=3, min_seconds=0.001, max_samples=5)


def job(program: Program, case: Path, **changes: Any) -> MeasureJob:
    """A job with tight tolerances and few samples."""
    return replace(MeasureJob(program, case, rtol=1e-6, atol=1e-6, sampling=QUICK), **changes)
