"""Half floats between kernels: results near PyTorch's, the same weights, and what stays float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_networks import BERT, SMALL_UNET, TEXT, VAE, assert_equals_pytorch, source_of
from tvm_ffi import structural_equal

from wgtune.database.tvm.graph_json import load_json
from wgtune.support.enums import AttentionForm, ComputePrecision, WeightPrecision
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.ir import CaptureOptions, Stage
from wgtune.tuner.schedule_rules.attention import find_attention

pytestmark = pytest.mark.slow

F32, F16 = ComputePrecision
NETWORKS = {"unet": ("unet", SMALL_UNET), "vae": ("vae", VAE), "clip": ("clip", TEXT), "bert": ("clip", BERT)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


def assert_same_weights(one: Stage, other: Stage) -> None:
    assert one.params == other.params and one.weight_names == other.weight_names
    assert one.weight_formats == other.weight_formats
    assert structural_equal(load_json(one.weight_transform), load_json(other.weight_transform))


@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_computes_nearly_what_pytorch_does_in_half_the_memory(network: str, attention: AttentionForm) -> None:
    stage, config = NETWORKS[network]
    source = source_of(**{stage: config})
    options = CaptureOptions(compute=F16, attention=attention)
    half = assert_equals_pytorch(source, stage, options, tolerance=8e-3)
    full = capture_model(source, CaptureOptions(attention=attention), [stage], use_cache=False)
    assert sum(half.stages[stage].temps) * 2 == sum(full.stages[stage].temps)
    assert len(half.stages[stage].calls) == len(full.stages[stage].calls)
    assert_same_weights(half.stages[stage], full.stages[stage])
    assert {spec.dtype for spec in half.stages[stage].outputs} == {"float32"}
    if attention is AttentionForm.FUSED:
        found = [find_attention(schedulable_module(kernel)) for kernel in half.kernels.values()]
        assert {one.dtype for one in found if one is not None} == {"float16"}


def test_weights_are_stored_and_split_alike_whatever_is_computed() -> None:
    """Pictures over a bound as float32 and under it as half floats, beside quantised weights."""
    config = {**SMALL_UNET, "cross_attention_dim": 32, "block_out_channels": (32,)}
    stages = [
        capture_model(
            source_of(unet=config),
            CaptureOptions(compute=compute, weights=WeightPrecision.Q8, max_binding=32 * 8 * 8 * 4 - 1),
            ["unet"],
            use_cache=False,
        ).stages["unet"]
        for compute in ComputePrecision
    ]
    assert_same_weights(*stages)
    split = {spec.shape for spec in stages[0].params}
    assert (16, 16, 3, 3) in split, "no filter was split, so this shows nothing"


def test_half_floats_are_only_between_kernels() -> None:
    capture = capture_model(source_of(clip=TEXT), CaptureOptions(compute=F16), ["clip"], use_cache=False)
    stage = capture.stages["clip"]
    seen = set()
    for call in stage.calls:
        for operand, spec in zip(call.operands, capture.kernels[call.kernel].params, strict=True):
            seen.add((operand.space, spec.dtype))
    assert seen == {("input", "int32"), ("param", "float32"), ("temp", "float16"), ("output", "float32")} | (
        {("constant", "float32")} if stage.constants else set()
    )
    assert all(np.isfinite(array).all() for array in stage.constants)
