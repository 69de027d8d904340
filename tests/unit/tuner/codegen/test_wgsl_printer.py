"""The WGSL that is written for lowered functions: vectors, registers, loads made once, addresses outside loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm
from tvm import te, tirx
from tvm.s_tir import Schedule

from wgtune.devices.limits import TIERS
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.lowered_kernel import joined_branches
from wgtune.tuner.codegen.straight_line import StraightLine
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import EmitError, emit_wgsl

TIER = TIERS["default"]


def elementwise(expression, shape: tuple[int, ...] = (64, 64), dtype: str = "float32", vector: int = 4) -> str:
    """The WGSL of an element-wise kernel, each thread with ``vector`` neighbours."""
    x = te.placeholder(shape, dtype)
    kernel = make_kernel("kernel", te.create_prim_func([x, te.compute(shape, lambda *i: expression(x, *i))]))
    schedule = Schedule(schedulable_module(kernel))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    loop = schedule.fuse(*schedule.get_loops(block))
    group, thread, lane = schedule.split(loop, [None, 32, vector])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.vectorize(lane)
    (shader,) = emit_wgsl(schedule.mod, TIER).shaders
    return shader.source


def test_aligned_neighbours_are_loaded_and_stored_as_vectors() -> None:
    source = elementwise(lambda x, i, j: x[i, j] * 2.0)
    assert source.count("array<vec4<f32>, 1024>") == 2 and "array<f32" not in source
    assert len(re.findall(r"b1\[.*\] = ", source)) == 1


def test_elements_that_do_not_align_are_loaded_one_by_one_and_stored_as_vectors() -> None:
    source = elementwise(lambda x, i, j: x[i, (j + 1) % 64])
    assert "b0 : array<f32, 4096>" in source and "b1 : array<vec4<f32>, 1024>" in source


def test_half_floats_that_are_only_read_need_no_feature() -> None:
    source = elementwise(lambda x, i, j: x[i, j].astype("float32") * 2.0, dtype="float16")
    assert "f16;" not in source and "b0 : array<vec2<u32>, 1024>" in source
    assert source.count("unpack2x16float") == 2 and len(re.findall(r"b0\[", source)) == 1


def test_a_single_half_float_is_chosen_from_its_word() -> None:
    source = elementwise(lambda x, i, j: x[i, j].astype("float32") * 2.0, (5, 7), "float16", vector=1)
    assert "b0 : array<u32, 18>" in source
    assert re.search(r"unpack2x16float\(b0\[.*\] >> \(\(thread\.x & 1u\) \* 16u\)\)\.x", source)
    assert "(thread.x >> 1u)" in source


def test_half_floats_that_are_computed_need_the_feature() -> None:
    source = elementwise(lambda x, i, j: x[i, j] * tirx.const(2.0, "float16"), dtype="float16")
    assert source.startswith("enable f16;") and "array<vec4<f16>, 1024>" in source


def test_the_chosen_one_of_two_half_floats_is_converted_and_not_both() -> None:
    def chosen(x, i, j):
        one, other = (x[(i + step) % 64, j].astype("float32") for step in (0, 32))
        return tirx.Select(i < 32, one, other).astype("float16")

    source = elementwise(chosen, dtype="float16")
    assert len(re.findall(r"select\(b0\[", source)) == 1 and "vec4<f32>(b0" not in source


def test_copies_of_half_floats_in_workgroup_memory_are_single_floats() -> None:
    """MetaSchedule's sketches copy what a kernel reads, before it is converted."""
    x = te.placeholder((64, 64), "float16")
    func = te.create_prim_func([x, te.compute(x.shape, lambda i, j: x[j, i].astype("float32"))])
    schedule = Schedule(schedulable_module(make_kernel("kernel", func)))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    copy = schedule.cache_read(block, 0, "shared")
    group, thread = schedule.get_loops(block)
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.compute_at(copy, group)
    schedule.bind(schedule.get_loops(copy)[-2], "threadIdx.x")
    program = emit_wgsl(schedule.mod, TIER)
    assert "var<workgroup> b0_shared : array<f32, 4096>" in program.shaders[0].source
    assert program.needs.features == () and program.needs.workgroup_bytes == 64 * 64 * 4


def test_bits_of_words_are_taken_without_signed_integers() -> None:
    def bits(x: te.Tensor, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        shift = (j % 4 * 8).astype("uint32")
        return ((x[i, j // 4] >> shift) & tirx.const(255, "uint32")).astype("float32")

    source = elementwise(bits, dtype="uint32")
    assert ">> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)" in source and "i32" not in source
    assert len(re.findall(r"b0\[", source)) == 1


def test_the_largest_number_is_written_with_digits_that_do_not_exceed_it() -> None:
    """Chromium refuses the shortest digits of it, 3.4028235e38."""
    source = elementwise(lambda x, i, j: tirx.Select(x[i, j] > 0.0, x[i, j], tirx.min_value("float32")), vector=1)
    (digits,) = re.findall(r"-(\d[\d.]*e\+38)f", source)
    largest = np.finfo(np.float32).max
    assert float(digits) <= float(largest) and np.float32(digits) == largest


def test_neighbours_that_lie_apart_in_the_result_are_stored_one_by_one() -> None:
    """Vectorised copies of MetaSchedule end so where a row's length is odd."""
    shape = (6, 11)
    x = te.placeholder(shape)
    kernel = make_kernel("kernel", te.create_prim_func([x, te.compute(shape, lambda *i: x(*i) * 2.0)]))
    schedule = Schedule(schedulable_module(kernel))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    schedule.transform_layout(block, ("write", 0), lambda i, j: [j, i])
    loop = schedule.fuse(*schedule.get_loops(block))
    thread, lane = schedule.split(loop, [None, 2])
    schedule.bind(thread, "threadIdx.x")
    schedule.vectorize(lane)
    (shader,) = emit_wgsl(schedule.mod, TIER).shaders
    stored = re.findall(r"b1\[(.*)\] = \w+\.([xy]);", shader.source)
    assert [component for _, component in stored] == ["x", "y"]

    def places(thread: int) -> list[int]:
        texts = [re.sub(r"(\d)u\b", r"\1", text).replace("thread.x", str(thread)) for text, _ in stored]
        return [eval(text.replace("/", "//")) for text in texts]

    assert [place for t in range(33) for place in places(t)] == [e % 11 * 6 + e // 11 for e in range(66)]


def test_a_buffer_that_threads_write_by_single_elements_stays_scalar() -> None:
    """WGSL may write a whole vector where a component is assigned."""
    source = elementwise(lambda x, i, j: x[i, j], vector=1)
    assert "vec4" not in source


def test_one_component_of_a_vector_is_read_by_its_name() -> None:
    x = te.placeholder((256,))
    twice = te.compute((64,), lambda i: x[4 * i + 2] + x[4 * i] * te.max(x[4 * i], x[4 * i + 1]))
    kernel = make_kernel("kernel", te.create_prim_func([x, twice]))
    schedule = Schedule(schedulable_module(kernel))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    copy = schedule.cache_read(block, 0, "local")
    (loop,) = schedule.get_loops(block)
    group, thread = schedule.split(loop, [None, 64])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.compute_at(copy, thread)
    _, lanes = schedule.split(schedule.get_loops(copy)[-1], [None, 4])
    schedule.unroll(schedule.get_loops(copy)[-2])
    del lanes
    source = emit_wgsl(schedule.mod, TIER).shaders[0].source
    assert "b1[thread.x]" in source


def test_addresses_are_computed_outside_the_loop_and_equal_loads_are_one() -> None:
    x, w = te.placeholder((64, 256)), te.placeholder((256,))
    k = te.reduce_axis((0, 256))
    total = te.compute((64,), lambda i: te.sum(x[i, k] * x[i, k] * w[k], k))
    kernel = make_kernel("kernel", te.create_prim_func([x, w, total]))
    schedule = Schedule(schedulable_module(kernel))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    rows, terms = schedule.get_loops(block)
    group, thread = schedule.split(rows, [None, 32])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.decompose_reduction(block, terms)
    before, loop = emit_wgsl(schedule.mod, TIER).shaders[0].source.split("for (", 1)
    (address,) = re.findall(r"let (\w+) = \(group.x \* 8192u\) \+ \(thread.x \* 256u\);", before)
    assert loop.count("b0[") == 1 and f"b0[{address} + " in loop
    assert "group" not in loop.split("}")[0].replace("b2[", "")[: loop.index("b2[")]


def test_integers_that_may_be_negative_are_signed_and_others_are_not() -> None:
    assert "i32" not in elementwise(lambda x, i, j: x[(i + 3) % 64, j])
    assert "i32(" in elementwise(lambda x, i, j: x[te.max(i - 5, 0), j])


def test_division_by_a_power_of_two_is_a_shift_and_a_mask() -> None:
    source = elementwise(lambda x, i, j: x[j // 8, i % 8 * 8 + j % 8], vector=1)
    assert ">> 3u" in source and "& 7u" in source and "/" not in source and "%" not in source


def test_a_choice_is_a_select_and_conditions_have_no_branches() -> None:
    source = elementwise(
        lambda x, i, j: tvm.tirx.if_then_else(tvm.tirx.all(i >= 1, j >= 1), x[i, j], tvm.tirx.const(0.0, "float32"))
    )
    assert "select(" in source and "&&" not in source and "if (" not in source


def test_functions_that_wgsl_lacks_are_written_out_with_their_argument_once() -> None:
    source = elementwise(lambda x, i, j: te.erf(x[i, j] * 3.5), vector=1)
    assert "erf" not in source and source.count("3.5f") == 1


def test_a_constant_that_is_not_finite_is_refused() -> None:
    with pytest.raises(EmitError, match="constant inf"):
        elementwise(lambda x, i, j: x[i, j] + tvm.tirx.const(float("inf"), "float32"))


def test_registers_are_variables_and_every_name_is_declared_once() -> None:
    x = te.placeholder((64, 8))
    k = te.reduce_axis((0, 8))
    total = te.compute((64,), lambda i: te.sum(x[i, k], k))
    kernel = make_kernel("kernel", te.create_prim_func([x, te.compute((64,), lambda i: te.exp(total[i]))]))
    schedule = Schedule(schedulable_module(kernel))
    first, second = schedule.get_child_blocks(schedule.get_sblock("root"))
    schedule.set_scope(first, 0, "local")
    (loop,) = schedule.get_loops(second)
    group, thread = schedule.split(loop, [None, 64])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.compute_at(first, thread)
    source = emit_wgsl(schedule.mod, TIER).shaders[0].source
    declared = re.findall(r"^\s*(?:var|let) (\w+)", source, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert re.search(r"var \w+_0 : f32;", source) and "var<private>" not in source


def test_a_value_that_occurs_twice_is_computed_once() -> None:
    source = elementwise(lambda x, i, j: te.exp(x[i, j] + 1.0) * x[i, j] + te.exp(x[i, j] + 1.0))
    assert source.count("exp(") == 1


def test_a_value_is_computed_again_where_a_register_has_changed() -> None:
    line = StraightLine()
    line.statements.append(f"a = {line.expression('r + 1.0f')};")
    line.stored("r", register=True)
    line.statements.append(f"b = {line.expression('r + 1.0f')};")
    line.statements.append(f"c = max({line.expression('r + 1.0f')}, 0.0f);")
    assert line.lines(lambda: "t") == ["a = r + 1.0f;", "let t = r + 1.0f;", "b = t;", "c = max(t, 0.0f);"]


def test_neighbours_that_read_the_same_element_stay_a_vector() -> None:
    source = elementwise(lambda x, i, j: x[i // 2, j // 2])
    assert "for (" not in source and "b1 : array<vec4<f32>" in source
    assert len(re.findall(r"b0\[", source)) == 2


def test_an_error_function_is_computed_in_vectors() -> None:
    source = elementwise(lambda x, i, j: te.erf(x[i, j]))
    assert "for (" not in source and source.count("array<vec4<f32>") == 2


def test_vectors_of_integers_that_may_be_negative_are_signed() -> None:
    source = elementwise(lambda x, i, j: (x[i, j].astype("int32") - 5).astype("float32"))
    assert "vec4<i32>" in source and "u32>(" not in source.partition("fn ")[2].partition("{")[2]


def test_neighbouring_branches_on_one_condition_are_one() -> None:
    condition = tvm.tirx.Var("i", "int32") < 3
    store = tvm.tirx.Evaluate(tvm.tirx.const(1, "int32"))
    branch, other = (tvm.tirx.IfThenElse(test, store, None) for test in (condition, tvm.tirx.Var("j", "int32") < 3))
    assert [type(found.then_case).__name__ for found in joined_branches([branch, branch, other])] == [
        "SeqStmt",
        "Evaluate",
    ]
    assert list(joined_branches([store, branch, store])) == [store, branch, store]
