"""Sums in the place of a summand: elements are read for their own results only, and nothing reads it later."""

from __future__ import annotations

from typing import Any

import pytest

from wgtune.build.memory.in_place import add_in_place
from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Operand, Stage, TensorSpec

SHADER = """enable f16;
@group(0) @binding(4) var<uniform> words : vec4<u32>;
@group(0) @binding(0) var<storage, read> x : array<vec4<f32>, 4>;
@group(0) @binding(1) var<storage, read> bias : array<f32, 2>;
@group(0) @binding(2) var<storage, read> rest : array<vec4<f32>, 4>;
@group(0) @binding(3) var<storage, read_write> y : array<vec4<f32>, 4>;
var<workgroup> rest_shared : array<f32, 4>;

fn main_kernel() {
  let t = bias[i];
  y[(i * 2u) + 1u] = (x[i] + rest[(i * 2u) + 1u]) + t;
  y[a[j] + 2u] = max(rest[a[j] + 2u], rest[a[j] + 2u]);
}
"""
READING = [
    ("let t = bias[i];", "let t = bias[i] + rest[i].x;"),
    ("rest[(i * 2u) + 1u]) + t", "rest[(i * 2u) + 2u]) + t"),
    ("rest[(i * 2u) + 1u]) + t", "rest[(i * 2u) + 1u] + rest[0u]) + t"),
    ("rest : array<vec4<f32>, 4>", "rest : array<f32, 16>"),
    ("y[a[j] + 2u] = ", "x2[a[j] + 2u] = "),
]
"""Changes after which the shader reads other elements than it writes, or as another type."""

SIZES = {"x": 64, "bias": 8, "rest": 64, "y": 64}


def kernel(name: str = "k") -> Kernel:
    params = tuple(TensorSpec(n, (size // 4,), "float32") for n, size in SIZES.items())
    func: Any = None
    return Kernel(name, name, "", func, params, (3,), 0.0, 0)


def program(source: str = SHADER) -> Program:
    buffers = tuple(Buffer("arg", index) for index in range(4))
    shader = Shader("main_kernel", source, (1, 1, 1))
    return Program((shader,), (Dispatch(0, buffers, (1, 1, 1)),), (), Requirements(1, (1, 1, 1), 0, 4, 64))


def temp(index: int, offset: int = 0) -> Operand:
    return Operand("temp", index, offset, 64)


def call(x: int, rest: Operand, y: Operand) -> Call:
    return Call("k", (temp(x), Operand("param", 0, 0, 8), rest, y))


def capture(calls: list[Call], temps: int = 5, size: int = 64) -> Capture:
    stage = Stage("unet", [], [], [], [], [size] * temps, calls)
    return Capture("key", "tiny", CaptureOptions(), {"unet": stage}, {"k": kernel()})


def test_a_residual_is_read_where_the_sum_is_written() -> None:
    given = capture([call(0, temp(1), temp(2)), call(0, temp(2), temp(3))])
    changed, programs = add_in_place(given, {"k": program()})
    made = programs["k"]
    assert [[o.index for o in c.operands if o.space == "temp"] for c in changed.stages["unet"].calls] == [[0, 1, 1]] * 2
    assert made.dispatches[0].buffers == (Buffer("arg", 0), Buffer("arg", 1), Buffer("arg", 3))
    assert made.needs.storage_buffers == 3
    source = made.shaders[0].source
    assert source.startswith(
        "enable f16;\n@group(0) @binding(3) var<uniform> words : vec4<u32>;\n@group(0) @binding(0)"
    )
    assert "@binding(2) var<storage, read_write> y : array<vec4<f32>, 4>;" in source
    assert "y[(i * 2u) + 1u] = (x[i] + y[(i * 2u) + 1u]) + t;" in source
    assert "rest_shared" in source and "rest[" not in source


@pytest.mark.parametrize("old, new", READING)
def test_elements_read_for_other_results_keep_their_own_memory(old: str, new: str) -> None:
    source = SHADER.replace(old, new)
    assert source != SHADER
    given = capture([call(0, temp(1), temp(2))])
    changed, programs = add_in_place(given, {"k": program(source)})
    assert programs["k"].shaders[0].source == source
    assert changed.stages["unet"].calls == given.stages["unet"].calls


@pytest.mark.parametrize(
    "calls",
    [
        # Read by a later call, of the same kernel or another one.
        [call(0, temp(1), temp(2)), call(0, temp(1), temp(3))],
        [call(0, temp(1), temp(2)), call(1, temp(2), temp(3))],
        # No tensor of its own: an input, a range of a larger tensor, the same tensor read twice.
        [call(0, Operand("input", 0, 0, 64), temp(2))],
        [call(0, temp(1), Operand("output", 0, 0, 64))],
        [call(0, temp(0), temp(2))],
    ],
)
def test_what_is_needed_later_or_lies_elsewhere_is_not_overwritten(calls: list[Call]) -> None:
    given = capture(calls)
    changed, programs = add_in_place(given, {"k": program()})
    assert changed.stages["unet"].calls == calls and programs["k"] == program()


def test_a_range_of_a_tensor_is_not_overwritten() -> None:
    given = capture([call(0, temp(1), temp(2))], size=128)
    assert add_in_place(given, {"k": program()})[0].stages["unet"].calls == given.stages["unet"].calls
