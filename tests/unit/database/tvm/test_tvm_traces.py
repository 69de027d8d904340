"""Traces told in the names of another module that is the same workload."""

from __future__ import annotations

import pytest
import tvm
import tvm_ffi
from tvm import te
from tvm.s_tir import Schedule

from wgtune.database.tvm.modules import describe_workload, named_by_position, stored_module, workload_of
from wgtune.database.tvm.traces import apply_trace, is_trace, trace_values, translated


def chained(first: str, second: str) -> tvm.IRModule:
    """A product and its double: blocks called ``first`` and ``second``, as are the buffers that they write."""
    a, b = te.placeholder((32, 32), name=f"{first}_left"), te.placeholder((32, 32), name=f"{first}_right")
    k = te.reduce_axis((0, 32))
    product = te.compute((32, 32), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name=first)
    doubled = te.compute((32, 32), lambda i, j: product[i, j] * 2.0, name=second)
    return tvm.IRModule({"main": te.create_prim_func([a, b, doubled])})


def scheduled(module: tvm.IRModule, product: str) -> Schedule:
    """Instructions that make blocks, and find these by the names that they got."""
    schedule = Schedule(module)
    block = schedule.get_sblock(product)
    _, j, k = schedule.get_loops(block)
    schedule.cache_read(block, 0, "shared")
    copied = next(child for child in _names(schedule.mod) if child.endswith("_shared"))
    schedule.compute_at(schedule.get_sblock(copied), j)
    outer, _ = schedule.split(k, schedule.sample_perfect_tile(k, 2, 8, decision=[4, 8]))
    schedule.decompose_reduction(block, outer)
    schedule.annotate(schedule.get_sblock(f"{product}_update"), "note", 1)
    schedule.enter_postproc()
    schedule.unannotate(schedule.get_sblock(f"{product}_update"), "note")
    return schedule


def _names(module: tvm.IRModule) -> list[str]:
    found: list[str] = []
    blocks = [(tvm.s_tir.SBlock, lambda block: found.append(str(block.name_hint)))]
    tvm_ffi.structural_walk(module["main"].body, blocks)
    return found


@pytest.mark.parametrize(("first", "second"), [("x", "y"), ("block1", "block0"), ("b0", "b1"), ("x_shared", "x_init")])
def test_a_trace_is_told_in_positions_and_back(first: str, second: str) -> None:
    """Blocks that the schedule made are found, whatever these are called, and whatever else is called so."""
    module = chained(first, second)
    tuned = scheduled(module, first)
    kept = translated(trace_values(tuned.trace), module, named_by_position(module))
    again = chained("other", "another")
    assert workload_of(again) == workload_of(module)
    applied = translated(trace_values(kept.trace), named_by_position(again), again)
    assert tvm_ffi.structural_equal(applied.mod, tuned.mod)
    assert not any(name.startswith("block") for name in _names(applied.mod))
    assert len(applied.trace.insts) == len(tuned.trace.insts), "postprocessing included"


def test_a_trace_of_another_workload_is_refused() -> None:
    module = chained("x", "y")
    trace = trace_values(scheduled(module, "x").trace)
    with pytest.raises(Exception, match="block"):
        translated(trace, chained("p", "q"), module)


def test_a_schedule_that_differs_between_the_two_modules_is_refused() -> None:
    """Names that fit are not enough: the result has to be the same."""
    a = te.placeholder((32, 32), name="a")
    other = te.compute((32, 32), lambda i, j: a[i, j] + 1.0, name="x")
    module = tvm.IRModule({"main": te.create_prim_func([a, te.compute((32, 32), lambda i, j: other[i, j], name="y")])})
    schedule = Schedule(module)
    schedule.split(schedule.get_loops(schedule.get_sblock("x"))[0], [4, 8])
    twice = te.compute((32, 32), lambda i, j: a[i, j] + 2.0, name="x")
    copy = tvm.IRModule({"main": te.create_prim_func([a, te.compute((32, 32), lambda i, j: twice[i, j], name="y")])})
    with pytest.raises(ValueError, match="alike"):
        translated(trace_values(schedule.trace), module, copy)


@pytest.mark.parametrize(
    "trace",
    [None, {}, [], [[]], [[["GetSBlock"]], []], [[], [[0, 1]]], [[["A", [], [], []]], [[True, 1]]], [[], [], []]],
)
def test_what_is_no_trace_is_known_before_tvm_sees_it(trace: object) -> None:
    assert not is_trace(trace)


def test_a_million_instructions_are_too_many() -> None:
    assert not is_trace([[["EnterPostproc", [], [], []]] * 1_000_000, []])


def test_a_workload_is_kept_in_a_form_that_gives_it_back() -> None:
    module = chained("x", "y")
    info = describe_workload(module)
    assert info.id == workload_of(module) == workload_of(stored_module(info) or module)
    assert [param.shape for param in info.params] == [(32, 32)] * 3 and info.outputs == (2,)
    assert info.nbytes == 3 * 32 * 32 * 4 and info.flops >= 2 * 32**3
    schedule = scheduled(named_by_position(module), "block0")
    kept = stored_module(info)
    assert kept is not None
    assert tvm_ffi.structural_equal(apply_trace(kept, trace_values(schedule.trace)).mod, schedule.mod)


def test_what_is_no_workload_has_no_id() -> None:
    two = chained("x", "y")
    assert workload_of(tvm.IRModule({"main": two["main"], "other": two["main"]})) is None
    assert workload_of(tvm.IRModule({"other": two["main"]})) is None
