"""Shaders that differ only in constants: which of them share a module, and that it is the same computation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tuning_kernels import conv2d, matmul, softmax

from wgtune.build.bundle.shared_shaders import share_shaders
from wgtune.build.format.shader_constants import with_constants
from wgtune.devices.limits import TIERS
from wgtune.devices.program import Program
from wgtune.devices.wgsl_bindings import binding_types
from wgtune.devices.wgsl_loops import thread_iterations
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel

TIER = TIERS["default"]


def program(kernel: Kernel) -> Program:
    return emit_wgsl(next(iter(baseline_schedules(kernel, TIER))).mod, TIER)


@pytest.fixture(scope="module")
def products() -> dict[str, Program]:
    """Three matrix products that differ in the length of the sum and in the number of rows."""
    return {str(k): program(matmul(256, 320, k)) for k in (640, 1280)} | {"long": program(matmul(512, 320, 640))}


def spelled_out(source: str, words: tuple[int, ...]) -> str:
    """A shared shader with its constants in it, as the kernel's own shader has them."""
    return re.sub(r"struct Constants .*\n.*\n", "", with_constants(source, words))


def without_sizes(source: str) -> str:
    return re.sub(r"(var<storage.*array<.*), \d+>;", r"\1>;", source)


def test_a_shared_module_with_its_constants_is_each_kernels_own(products: dict[str, Program]) -> None:
    shared = share_shaders(products)
    assert len({one.shaders[0].source for one in products.values()}) == 3
    assert len({one.shaders[0].source for one in shared.values()}) == 1
    for key, own in products.items():
        (shader,), (dispatch,) = shared[key].shaders, shared[key].dispatches
        assert dispatch.uniform and replace(dispatch, uniform=()) == own.dispatches[0]
        assert spelled_out(shader.source, dispatch.uniform) == without_sizes(own.shaders[0].source)
        assert binding_types(shader.source) == [*binding_types(own.shaders[0].source), "uniform"]
        assert thread_iterations(with_constants(shader.source, dispatch.uniform)) == thread_iterations(
            own.shaders[0].source
        )
        assert (shared[key].needs, shared[key].scratch) == (own.needs, own.scratch)


def test_the_constants_are_declared_behind_directives(products: dict[str, Program]) -> None:
    """WGSL allows `enable f16` before declarations only."""

    def half(program: Program) -> Program:
        (shader,) = program.shaders
        return replace(program, shaders=(replace(shader, source=f"enable f16;\n\n{shader.source}"),))

    for key, shared in share_shaders({key: half(own) for key, own in products.items()}).items():
        (shader,), (dispatch,) = shared.shaders, shared.dispatches
        assert shader.source.startswith("enable f16;\n\nstruct Constants {") and dispatch.uniform
        own = without_sizes(half(products[key]).shaders[0].source)
        assert spelled_out(shader.source, dispatch.uniform) == own


def test_what_stands_alone_keeps_its_shader(products: dict[str, Program]) -> None:
    alone = {"a": products["640"], "conv": program(conv2d())}
    assert share_shaders(alone) == alone
    twice = {"a": products["640"], "b": products["640"]}
    assert share_shaders(twice) == twice, "the same text is one module anyway"


def test_kernels_without_multiply_adds_in_a_loop_keep_theirs() -> None:
    norms = {str(rows): program(softmax(rows, 77, 77)) for rows in (12, 24)}
    assert share_shaders(norms) == norms


def edited(products: dict[str, Program], edit: Callable[[str], str]) -> dict[str, Program]:
    """The programs with their WGSL edited."""

    def one(own: Program) -> Program:
        return replace(own, shaders=tuple(replace(s, source=edit(s.source)) for s in own.shaders))

    return {key: one(own) for key, own in products.items()}


def test_a_loop_that_reads_a_storage_buffer_is_not_touched(products: dict[str, Program]) -> None:
    """Without its size each access would be clamped by a length that is read at run time."""
    reading = edited(products, lambda source: re.sub(r"b\d_shared\[", "b0[", source))
    assert share_shaders(reading) == reading


def test_constants_in_the_loop_that_does_the_work_must_be_the_same(products: dict[str, Program]) -> None:
    def stretch(source: str) -> str:
        loops = list(re.finditer(r"for \([^{}]*\) \{[^{}]*\}", source))
        hot = max(loops, key=lambda found: len(found[0]))
        head = re.sub(r"< (\d+)u", f"< {len(stretched) + 5}u", hot[0], count=1)
        stretched.append(head)
        return source.replace(hot[0], head)

    stretched: list[str] = []
    different = edited(products, stretch)
    assert share_shaders(different) == different


def test_a_program_that_has_a_uniform_keeps_it(products: dict[str, Program]) -> None:
    bound = {
        key: replace(own, dispatches=tuple(replace(d, uniform=(7,)) for d in own.dispatches))
        for key, own in products.items()
    }
    assert share_shaders(bound) == bound
