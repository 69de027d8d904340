"""Kernels without a reduction: axes that count as one, transposes, and vectors in one dispatch."""

from __future__ import annotations

import re

import pytest
from tuning_kernels import matmul, transpose
from tvm import te, topi

from wgtune.devices.limits import TIERS
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import rule_spaces
from wgtune.tuner.schedule_rules.pointwise import Pointwise, find_pointwise

TIER = TIERS["default"]


def kernel_of(*tensors: te.Tensor) -> Kernel:
    return make_kernel("kernel", te.create_prim_func(list(tensors)))


def concatenation() -> Kernel:
    x, y = te.placeholder((2, 12, 8, 8)), te.placeholder((2, 4, 8, 8))
    return kernel_of(x, y, topi.concatenate([x, y], 1))


def gated() -> Kernel:
    """The halves of each row, one through an error function."""
    x = te.placeholder((2, 64, 512))
    low, high = topi.split(x, 2, -1)
    gelu = te.compute(high.shape, lambda *i: high(*i) * (0.5 + 0.5 * te.erf(high(*i) * 0.70710678)))
    return kernel_of(x, topi.multiply(low, gelu))


def look_up() -> Kernel:
    table, ids = te.placeholder((5000, 768)), te.placeholder((77,), "int32")
    return kernel_of(table, ids, topi.take(table, ids, axis=0))


def doubled() -> Kernel:
    x = te.placeholder((2, 16, 8, 8))
    return kernel_of(x, te.compute((2, 16, 16, 16), lambda n, c, h, w: x[n, c, h // 2, w // 2]))


def to_pixels() -> Kernel:
    """Channels of an image to the last dimension, its pixels as one, as before attention."""
    x = te.placeholder((2, 32, 16, 16))
    return kernel_of(x, topi.reshape(topi.transpose(x, (0, 2, 3, 1)), (2, 256, 32)))


def doubled_pixels() -> Kernel:
    """Back to an image, at twice its size."""
    x = te.placeholder((2, 64, 32))
    image = topi.reshape(topi.transpose(x, (0, 2, 1)), (2, 32, 8, 8))
    return kernel_of(x, te.compute((2, 32, 16, 16), lambda n, c, h, w: image[n, c, h // 2, w // 2]))


def added() -> Kernel:
    """A transposed operand beside one that is not."""
    x, y = te.placeholder((1, 64, 32)), te.placeholder((1, 32, 64))
    return kernel_of(x, y, topi.add(topi.transpose(x, (0, 2, 1)), y))


def plain() -> Kernel:
    x, y = te.placeholder((1, 7, 12)), te.placeholder((1, 7, 12))
    return kernel_of(x, y, topi.add(x, y))


def found(kernel: Kernel) -> Pointwise:
    result = find_pointwise(schedulable_module(kernel))
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("make", "groups", "across"),
    [
        (plain, ((0, 1, 2),), {}),
        (concatenation, ((0,), (1,), (2, 3)), {}),
        (gated, ((0, 1), (2,)), {}),
        (look_up, ((0,), (1,)), {}),
        (doubled, ((0, 1), (2,), (3,)), {}),
        (to_pixels, ((0,), (1,), (2,)), {0: 1}),
        (doubled_pixels, ((0,), (1,), (2,), (3,)), {}),
        (added, ((0, 1), (2,)), {0: 0}),
    ],
)
def test_axes_that_all_accesses_pass_through_as_one_are_one(make, groups, across) -> None:  # type: ignore[no-untyped-def]
    kernel = found(make())
    assert kernel.groups == groups and kernel.across == across


def test_what_reduces_is_not_pointwise() -> None:
    assert find_pointwise(schedulable_module(matmul())) is None


@pytest.mark.parametrize("make", [plain, concatenation, gated, look_up, doubled, to_pixels, added, transpose])
def test_the_default_writes_vectors_in_one_dispatch(make) -> None:  # type: ignore[no-untyped-def]
    module = schedulable_module(make())
    space = rule_spaces(module, workgroup_limits(TIER))[0]
    assert space.rule == ("transpose" if make in (to_pixels, added) else "elementwise")
    assert space.fits(space.defaults)
    program = emit_wgsl(space.schedule(space.defaults).mod, TIER)
    assert len(program.dispatches) == 1 and not program.scratch
    source = program.shaders[0].source
    assert re.search(r"var<storage, read_write> \w+ : array<vec4<f32>", source), source
    assert "for (" not in source
    if make is not doubled:
        assert not re.search(r"var<storage, read> \w+ : array<f32", source), source
