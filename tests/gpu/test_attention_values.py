"""Attention as one kernel on the adapter: every tiling gives what PyTorch gives in double precision."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Sampling, Timeouts
from wgtune.devices.quirks import Quirks
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import TrialState
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.reference.reference import make_case
from wgtune.tuner.schedule_rules import RuleSpace, rule_spaces
from wgtune.tuner.schedule_rules.attention.definition import Attention, attention_func

TIER = TIERS["default"]
DRAWS = 2

STATEMENTS = 48
"""Most vector multiply-adds of a point that is drawn: software adapters compile long programs for seconds."""

SHAPES = {
    "heads of 40": Attention(2, 96, 96, 2, 40, 40**-0.5),
    "heads of 80": Attention(1, 64, 64, 2, 80, 80**-0.5),
    "heads of 160, few queries": Attention(2, 16, 16, 2, 160, 160**-0.5),
    "one head of 512": Attention(1, 48, 48, 1, 512, 512**-0.5),
    "77 keys": Attention(2, 64, 77, 2, 40, 40**-0.5),
    "causal, 77 keys, heads of 64": Attention(1, 77, 77, 3, 64, 0.125, causal=True),
    "odd lengths": Attention(1, 53, 31, 3, 64, 0.3),
    "odd channels": Attention(2, 9, 11, 2, 7, 1.0),
    "two channels": Attention(1, 5, 3, 1, 2, 1.0),
    "one key": Attention(1, 4, 1, 2, 8, 1.0),
    "mask of keys": Attention(2, 24, 40, 2, 16, 0.25, mask=(2, 1, 1, 40)),
    "whole mask": Attention(2, 21, 33, 2, 16, 0.25, mask=(2, 2, 21, 33)),
}


def inputs_of(like: Attention, magnitude: float) -> list[np.ndarray]:
    """Return standard normal tensors, queries times ``magnitude``; a mask forbids a third, the first tiles whole."""
    chance = np.random.default_rng(7)
    arrays = [chance.standard_normal(shape).astype(np.float32) for shape in like.inputs[:3]]
    arrays[0] *= magnitude
    if like.mask is not None:
        mask = np.where(chance.random(like.mask) < 0.3, np.finfo(np.float32).min, 0).astype(np.float32)
        mask[..., : min(17, like.keys - 1)] = np.finfo(np.float32).min
        mask[..., -1] = 1.5
        arrays.append(mask)
    return [array.astype(like.dtype) for array in arrays]


def expected_of(like: Attention, arrays: list[np.ndarray]) -> np.ndarray:
    query, key, value = (torch.from_numpy(array).double().transpose(1, 2) for array in arrays[:3])
    mask = torch.from_numpy(arrays[3]).double() if like.mask is not None else None
    result = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=like.causal, scale=like.scale
    )
    return np.ascontiguousarray(result.transpose(1, 2).numpy().astype(like.dtype))


def points_of(space: RuleSpace, few: RuleSpace, name: str) -> list[dict[str, int]]:
    """Return the defaults, those for a CPU's adapter, and some drawn at random."""
    chance = random.Random(name)
    points = [space.defaults, few.defaults]
    for _ in range(20_000):
        point = {parameter.name: chance.choice(parameter.candidates) for parameter in space.parameters}
        if len(points) < DRAWS + 2 and space.fits(point) and (space.describe(point).statements or 0) <= STATEMENTS:
            points.append(point)
    return points


def spaces_of(like: Attention) -> tuple[RuleSpace, RuleSpace]:
    module = schedulable_module(make_kernel("attention", attention_func(like)))
    quirks = Quirks(lanes=64, wave=8, avoids_workgroup_memory=True)
    (space,), (few,) = (rule_spaces(module, workgroup_limits(TIER, q)) for q in (Quirks(), quirks))
    return space, few


@pytest.fixture
def worker(device: Device) -> Iterator[Worker]:
    """A worker that waits for software adapters to compile what suits GPUs."""
    with Worker(device, Timeouts(compile_s=300.0)) as opened:
        yield opened


@pytest.mark.parametrize("magnitude", [1.0, 300.0], ids=["", "large scores"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_tiling_gives_what_pytorch_gives(worker: Worker, tmp_path: Path, name: str, magnitude: float) -> None:
    like = SHAPES[name]
    arrays = inputs_of(like, magnitude)
    expected = expected_of(like, arrays)
    path = tmp_path / "case.safetensors"
    save_file({**{f"arg{i}": a for i, a in enumerate(arrays)}, f"expected{len(arrays)}": expected}, path)
    # The exponential of a score s has a relative error of |s|·u, and large scores differ by rounding alone.
    atol = 2e-6 if magnitude == 1.0 else 2e-3
    space, few = spaces_of(like)
    for point in points_of(space, few, name):
        program = emit_wgsl(space.schedule(point).mod, TIER)
        assert len(program.dispatches) == 1 and not program.scratch, space.label(point)
        sampling = Sampling(min_samples=1, min_seconds=0.0)
        result = worker.measure(MeasureJob(program, path, 1e-4, atol, sampling=sampling))
        assert result.state is TrialState.OK, f"{space.label(point)}: {result.error}"


@pytest.mark.parametrize("name", ["77 keys", "causal, 77 keys, heads of 64", "whole mask"])
def test_the_reference_of_a_kernel_is_pytorchs(worker: Worker, tmp_path: Path, name: str) -> None:
    like = replace(SHAPES[name], mask=None)
    kernel = make_kernel("attention", attention_func(like))
    case = make_case(kernel, 0, tmp_path)
    from safetensors.numpy import load_file

    arrays = load_file(case.path)
    expected = expected_of(like, [arrays[f"arg{i}"] for i in range(3)])
    assert np.abs(arrays["expected3"] - expected).max() < 1e-6
    space, _ = spaces_of(like)
    program = emit_wgsl(space.schedule(space.defaults).mod, TIER)
    assert worker.measure(MeasureJob(program, case.path, case.rtol, case.atol)).state is TrialState.OK
