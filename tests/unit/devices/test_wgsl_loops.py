"""Iterations of a thread's loops, counted in WGSL: between what drivers may unroll and what none does."""

from __future__ import annotations

import pytest
from sample_programs import DOUBLING

from wgtune.devices.program import NativeProgram, Program, Requirements, Shader
from wgtune.devices.wgsl_loops import may_exceed, surely_exceeds, thread_iterations


def loop(extent: int, body: str = "s += 1.0;", name: str = "i") -> str:
    return f"for (var {name} : i32 = 0i; {name} < {extent}i; {name}++) {{\n  {body}\n}}\n"


def module(body: str) -> str:
    return f"struct Args {{ n : u32 }}\n@compute @workgroup_size(64, 1, 1)\nfn main() {{\n  {body}\n}}\n"


@pytest.mark.parametrize(
    ("body", "least", "most"),
    [
        ("s = 1.0;", 0, 0),
        (loop(1000), 1000, 1001),
        (loop(32), 0, 33),
        (loop(33), 33, 34),
        (loop(1000, loop(64, name="j")), 1000 * 65, 1000 * 66 + 1),
        (loop(1000, loop(8, name="j")), 1000, 1000 * 10 + 1),
        (loop(4, loop(8, name="j")), 0, 4 * 10 + 1),
        (loop(5, loop(8, name="j")), 5, 5 * 10 + 1),
        (loop(1000) + loop(500), 1500, 1502),
        (f"if (id.x < 7u) {{ {loop(100)} }} else {{ s = 0.0; }}", 100, 101),
        ("for (var i = 2u; i < 100u; i = i + 4u) { s += 1.0; }", 0, 26),
        ("for (var k : u32 = 0u; k < 40u; k += 1u) { s += 1.0; }", 40, 41),
        ("for (var i: i32 = 0; i <= 99; i += 2) { s += 1.0; }", 50, 51),
        ("for (var i : i32 = 0i; i < n; i++) { s += 1.0; }", 0, 2),
        ("for (var i : i32 = 9i; i < 3i; i++) { s += 1.0; }", 0, 1),
        ("while (s < 1.0) { s += 1.0; }", 0, 0),
    ],
)
def test_iterations(body: str, least: int, most: int) -> None:
    assert thread_iterations(module(body)) == (least, most)


def test_text_that_is_no_wgsl_does_not_matter() -> None:
    assert thread_iterations("}}}} for (") == (0, 0)


def program(*bodies: str) -> Program:
    shaders = tuple(Shader("main", module(body), (64, 1, 1)) for body in bodies)
    return Program(shaders, DOUBLING.dispatches, (), DOUBLING.needs)


def test_each_shader_has_its_own_limit() -> None:
    assert not may_exceed(program(loop(60), loop(60)), 61)
    assert may_exceed(program(loop(10), loop(61)), 61)


def test_short_loops_may_but_need_not_exceed_a_limit() -> None:
    one = program(loop(100, loop(8, name="j")))
    assert may_exceed(one, 500) and not surely_exceeds(one, 500)
    assert surely_exceeds(one, 99) and not surely_exceeds(one, 100)
    assert not may_exceed(one, None) and not surely_exceeds(one, None)


def test_native_code_is_not_counted() -> None:
    native = NativeProgram("", "", ("main",), Requirements(1, (1, 1, 1), 0, 0, 0))
    assert not may_exceed(native, 0) and not surely_exceeds(native, 0)
