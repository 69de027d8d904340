"""Calls in the order that takes the least memory: any order computes the same, and none takes more than the given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wgtune.build.memory.call_order import order_calls
from wgtune.tuner.ir import Call, Operand, Stage, TensorSpec

KERNELS: Any = {f"k{inputs}": SimpleNamespace(outputs=(inputs,)) for inputs in range(5)}


def stage(sizes: list[int], calls: list[tuple[list[int], int]]) -> Stage:
    """A stage whose calls read and write temps; those that read none read an input."""

    def call(reads: list[int], written: int) -> Call:
        operands = [Operand("temp", t, 0, sizes[t]) for t in reads] or [Operand("input", 0, 0, 4)]
        return Call(f"k{len(operands)}", (*operands, Operand("temp", written, 0, sizes[written])))

    return Stage("vae", [], [], [], [], sizes, [call(reads, written) for reads, written in calls])


def peak(stage: Stage, calls: list[Call]) -> int:
    """Bytes of temps alive at once; fails where a call reads what nothing wrote yet."""
    last = {o.index: number for number, call in enumerate(calls) for o in call.operands if o.space == "temp"}
    alive: dict[int, int] = {}
    most = 0
    for number, call in enumerate(calls):
        assert all(o.index in alive for o in call.operands[:-1] if o.space == "temp")
        written = call.operands[-1].index
        alive[written] = stage.temps[written]
        most = max(most, sum(alive.values()))
        alive = {t: n for t, n in alive.items() if last[t] > number}
    return most


def test_a_shortcut_is_computed_where_it_lets_memory_go() -> None:
    # 0 is large; the branch 1, 2 and the shortcut 3 both start from it.
    residual = stage([8, 4, 4, 1, 1], [([], 0), ([0], 1), ([1], 2), ([0], 3), ([2, 3], 4)])
    ordered = order_calls(residual, KERNELS)
    assert [call.operands[-1].index for call in ordered] == [0, 3, 1, 2, 4]
    assert (peak(residual, residual.calls), peak(residual, ordered)) == (16, 13)


def test_parts_of_a_sum_are_added_as_they_are_made() -> None:
    # Four parts of one tensor, each made by two calls and added in place to a sum, which is as large as all of them.
    parts = range(4)
    calls = [([], 0)] + [([0], 1 + part) for part in parts] + [([1 + part], 5 + part) for part in parts]
    made = stage([2, *[4] * 8, 16], calls)
    sums = [Call("k1", (Operand("temp", 5, 0, 4), Operand("temp", 9, 0, 16)))]
    sums += [
        Call("k2", (Operand("temp", 5 + part, 0, 4), Operand("temp", 9, 0, 16), Operand("temp", 9, 0, 16)))
        for part in parts[1:]
    ]
    made.calls.extend(sums)
    assert peak(made, made.calls) == 4 * 4 + 16
    assert peak(made, order_calls(made, KERNELS)) == 2 + 4 + 4 + 16


def test_an_order_that_cannot_be_better_stays() -> None:
    line = stage([4, 4, 4], [([], 0), ([0], 1), ([1], 2)])
    assert order_calls(line, KERNELS) == line.calls
    apart = stage([1, 1, 2], [([], 1), ([], 0), ([0, 1], 2)])
    assert order_calls(apart, KERNELS) == apart.calls
    assert order_calls(stage([], []), KERNELS) == []


def test_results_that_later_calls_read_and_tensors_written_in_place_keep_their_order() -> None:
    output = Operand("output", 0, 0, 4)
    calls = [
        Call("k1", (Operand("input", 0, 0, 4), output)),
        Call("k1", (output, Operand("temp", 0, 0, 4))),
        Call("k1", (Operand("temp", 0, 0, 4), Operand("temp", 0, 256, 4))),
        Call("k1", (Operand("temp", 0, 256, 4), Operand("temp", 1, 0, 4))),
    ]
    given = Stage("clip", [], [TensorSpec("text", (1,), "float32")], [], [], [512, 4], calls)
    assert order_calls(given, KERNELS) == calls


@settings(deadline=None)
@given(st.data())
def test_orders_are_sound_and_take_no_more_memory(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    calls = []
    for number in range(count):
        before = st.integers(0, number - 1)
        calls.append((data.draw(st.lists(before, max_size=3, unique=True)) if number else [], number))
    made = stage(sizes, calls)
    ordered = order_calls(made, KERNELS)
    assert sorted(map(str, ordered)) == sorted(map(str, made.calls))
    assert peak(made, ordered) <= peak(made, made.calls)
