"""Slices of a grid cover it once."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from printed_program import NEEDS, SOURCE, program

from wgtune.devices.program import Program, Shader
from wgtune.devices.wgsl_bindings import binding_types
from wgtune.tuner.codegen.grid_slices import slice_dispatches


@settings(deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), st.integers(2, 12))
def test_every_workgroup_runs_once(grid: tuple[int, int, int], count: int) -> None:
    ran = [
        tuple(first + inside for first, inside in zip(dispatch.uniform, place, strict=False))
        for dispatch in slice_dispatches(program(grid), count).dispatches
        for place in product(*map(range, dispatch.grid))
    ]
    assert sorted(ran) == sorted(product(*map(range, grid)))


def test_slices_are_of_about_equal_size_along_the_longest_axis() -> None:
    sliced = slice_dispatches(program((2, 10, 1), (1, 1, 2)), 3)
    assert [d.grid for d in sliced.dispatches] == [(2, 3, 1), (2, 3, 1), (2, 4, 1), (1, 1, 1), (1, 1, 1)]
    assert [d.uniform for d in sliced.dispatches[:3]] == [(0, 0, 0, 0), (0, 3, 0, 0), (0, 6, 0, 0)]
    (shader,) = sliced.shaders
    assert binding_types(shader.source) == ["read-only-storage", "storage", "uniform"]
    assert "let group = group_in_slice + first_group.xyz;" in shader.source


def test_a_shader_of_another_form_is_refused() -> None:
    foreign = Shader("main_kernel", SOURCE.replace(" group :", " place :"), (1, 1, 1))
    with pytest.raises(ValueError, match="was not printed"):
        slice_dispatches(Program((foreign,), program((4, 1, 1)).dispatches, (), NEEDS), 2)
