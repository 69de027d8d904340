"""Capture: what comes out computes what PyTorch does, under the limits asked for, and is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import BERT, SMALL_UNET, TEXT, UNET, VAE, WIDE_UNET, assert_equals_pytorch, source_of
from stage_runner import StageRunner
from weight_decoder import decode

from wgtune.support.enums import AttentionForm, WeightPrecision
from wgtune.support.errors import CaptureError
from wgtune.tuner.capture import exporter, stage_cache
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.networks import build_network
from wgtune.tuner.capture.sources import ModelSource
from wgtune.tuner.capture.weights.formats import encode
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.ir import Capture, CaptureOptions
from wgtune.tuner.schedule_rules.attention import find_attention

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


def largest_operand(capture: Capture) -> int:
    return max(o.nbytes for stage in capture.stages.values() for call in stage.calls for o in call.operands)


def test_a_unet_computes_what_pytorch_does() -> None:
    capture = assert_equals_pytorch(source_of(unet=UNET), "unet")
    stage = capture.stages["unet"]
    shapes = [(spec.name, spec.shape) for spec in stage.inputs]
    assert shapes == [("latents", (2, 4, 8, 8)), ("timestep", ()), ("context", (2, 11, 16))]
    assert [(spec.name, spec.shape) for spec in stage.outputs] == [("noise", (2, 4, 8, 8))]
    # Attention reads the projections' results as they lie, and the products around it turn pictures to sequences.
    assert not [kernel.name for kernel in capture.kernels.values() if "transpose" in kernel.name]


def test_attention_over_a_bound_is_split_into_ranges_that_share_kernels_and_need_no_copies() -> None:
    source, bound = source_of(unet=SMALL_UNET), 16 * 1024
    options = CaptureOptions(attention=AttentionForm.SPLIT)
    whole = capture_model(source, options, use_cache=False)
    split = assert_equals_pytorch(source, "unet", replace(options, max_binding=bound))
    # 2 pictures × 2 heads × 64 × 64 scores of 4 bytes are 64 KiB, in 4 ranges of at most 16 KiB.
    assert largest_operand(whole) == 64 * 1024
    assert max(k.params[-1].nbytes for k in split.kernels.values() if "attention_scores" in k.name) == bound
    assert not [k.name for k in split.kernels.values() if "copy" in k.name or "slice" in k.name]
    assert len(split.kernels) <= len(whole.kernels) + 3
    calls = split.stages["unet"].calls_per_kernel()
    counts = {calls[k.id] for k in split.kernels.values() if "attention_values" in k.name}
    assert 4 in counts


@pytest.mark.parametrize("stage", ["unet", "clip"])
def test_attention_as_one_kernel_computes_what_pytorch_does(stage: str) -> None:
    source = source_of(unet=SMALL_UNET, clip=TEXT)
    split = capture_model(source, CaptureOptions(attention=AttentionForm.SPLIT), [stage], use_cache=False)
    fused = assert_equals_pytorch(source, stage, CaptureOptions(attention=AttentionForm.FUSED))
    names = [kernel.name for kernel in fused.kernels.values()]
    assert not [name for name in names if "scores" in name or "softmax" in name]
    found = {key: find_attention(schedulable_module(kernel)) for key, kernel in fused.kernels.items()}
    attention = {key: like for key, like in found.items() if like is not None}
    assert attention and all("attention" in fused.kernels[key].name for key in attention)
    # The text encoder's mask holds for every prompt: it is part of the kernel, not a tensor.
    assert all(like.mask is None and like.causal is (stage == "clip") for like in attention.values())
    assert len(fused.stages[stage].calls) < len(split.stages[stage].calls)
    assert max(fused.stages[stage].temps) <= max(split.stages[stage].temps)


def test_an_embedding_table_over_a_bound_is_read_in_ranges_of_its_rows() -> None:
    source = source_of(clip=TEXT)
    table = TEXT["vocab_size"] * TEXT["hidden_size"] * 4
    split = assert_equals_pytorch(source, "clip", CaptureOptions(max_binding=table // 3))
    (take,) = (kernel for kernel in split.kernels.values() if kernel.name.startswith("take"))
    tables = [spec for spec in take.params if len(spec.shape) == 2 and spec.dtype == "float32"]
    assert len(tables) >= 3 and sum(spec.nbytes for spec in tables) == table
    (call,) = (call for call in split.stages["clip"].calls if call.kernel == take.id)
    ranges = sorted((o.offset, o.nbytes) for o in call.operands if o.space == "param")
    assert all(offset % 256 == 0 for offset, _ in ranges)
    assert [offset for offset, _ in ranges] == [sum(n for _, n in ranges[:i]) for i in range(len(ranges))]
    assert largest_operand(split) <= table // 3


def test_a_decoder_scales_shifts_decodes_and_clamps() -> None:
    capture = assert_equals_pytorch(source_of(vae=VAE), "vae")
    stage = capture.stages["vae"]
    assert [(spec.name, spec.shape) for spec in stage.inputs] == [("latents", (1, 4, 8, 8))]
    assert [(spec.name, spec.shape) for spec in stage.outputs] == [("image", (1, 3, 16, 16))]
    assert not [name for name in stage.weight_names if name.startswith("encoder")]


@pytest.mark.parametrize("batch, more", [(1, 2), (2, 1)])
def test_pictures_over_a_bound_are_computed_in_groups_of_channels(batch: int, more: int) -> None:
    # 32 channels of 32 × 32 pixels in the last level, 16 in the end: parts of 64 KiB hold 16 channels.
    source = source_of(vae={**VAE, "block_out_channels": (16, 32), "layers_per_block": 1, "sample_size": 32})
    bound = 64 * 1024
    whole = capture_model(source, CaptureOptions(batch=batch), ["vae"], use_cache=False)
    split = assert_equals_pytorch(source, "vae", CaptureOptions(max_binding=bound, batch=batch))
    assert largest_operand(whole) >= batch * 2 * bound
    assert largest_operand(split) == bound
    assert not [k.name for k in split.kernels.values() if "copy" in k.name or "slice" in k.name]
    # Equal parts share kernels; sums of convolutions over parts of the input take a kernel more.
    assert len(split.kernels) == len(whole.kernels) + more
    # Slices of weights take no more memory than the weights.
    assert sum(spec.nbytes for spec in split.stages["vae"].params) == sum(
        spec.nbytes for spec in whole.stages["vae"].params
    )


def test_norms_of_large_pictures_live_in_parts_until_a_convolution_added_them() -> None:
    # 128 channels of 16 × 16 pixels fit the bound, but the norm of a quarter of them takes a quarter of the memory.
    bound = 128 * 1024
    source = source_of(vae={**VAE, "block_out_channels": (128, 128), "layers_per_block": 1, "sample_size": 16})
    whole = capture_model(source, CaptureOptions(), ["vae"], use_cache=False)
    split = assert_equals_pytorch(source, "vae", CaptureOptions(max_binding=bound))
    assert not [k.name for k in split.kernels.values() if "copy" in k.name or "slice" in k.name]
    parts = [k for k in split.kernels.values() if "group_norm_silu" in k.name and k.params[-1].shape[1] == 32]
    assert parts and not [k for k in whole.kernels.values() if k.params[-1].shape[1] == 32]
    # A sum begins with the picture that it is added to at last, so that no kernel reads two of them.
    picture = (1, 128, 16, 16)
    sums = [k for k in split.kernels.values() if k.params[0].shape[1] == 32 and k.params[-1].shape == picture]
    assert {sum(spec.shape == picture for spec in kernel.params) for kernel in sums} == {1, 2}


def test_pictures_that_no_operator_can_split_stay_whole() -> None:
    # Parts of 16 KiB would end within the groups of a norm.
    source = source_of(vae={**VAE, "block_out_channels": (16, 32), "layers_per_block": 1, "sample_size": 32})
    split = assert_equals_pytorch(source, "vae", CaptureOptions(max_binding=16 * 1024))
    assert largest_operand(split) == 128 * 1024


def test_a_unet_in_groups_of_channels() -> None:
    split = assert_equals_pytorch(source_of(unet={**UNET, "sample_size": 16}), "unet", CaptureOptions(max_binding=8192))
    assert any("conv2d" in kernel.name for kernel in split.kernels.values())


def test_a_clip_text_encoder() -> None:
    capture = assert_equals_pytorch(source_of(clip=TEXT), "clip")
    assert [spec.dtype for spec in capture.stages["clip"].inputs] == ["int32"]
    assert not [kernel.name for kernel in capture.kernels.values() if "transpose" in kernel.name]


def test_a_bert_text_encoder() -> None:
    assert_equals_pytorch(source_of(clip=BERT), "clip")


def test_two_text_encoders_give_the_last_but_one_layer_and_the_second_its_pooled_text() -> None:
    second = {**TEXT, "architectures": ["CLIPTextModelWithProjection"]}
    source = source_of(clip=TEXT, clip2=second)
    first = assert_equals_pytorch(source, "clip").stages["clip"]
    assert not [name for name in first.weight_names if "layers.1" in name or "final_layer_norm" in name]
    outputs = assert_equals_pytorch(source, "clip2").stages["clip2"].outputs
    assert [(spec.name, spec.shape) for spec in outputs] == [("text_embedding", (1, 11, 16)), ("pooled_text", (1, 8))]


@pytest.mark.parametrize(
    "change, extra",
    [
        ({"in_channels": 9, "sample_size": (6, 10), "num_class_embeds": 5}, ["class_labels"]),
        (
            {
                "class_embed_type": "projection",
                "projection_class_embeddings_input_dim": 6,
                "time_cond_proj_dim": 6,
                "resnet_time_scale_shift": "scale_shift",
            },
            ["class_labels", "timestep_cond"],
        ),
        (
            {
                "class_embed_type": "timestep",
                "encoder_hid_dim": 6,
                "encoder_hid_dim_type": "text_proj",
                "addition_embed_type": "text",
                "addition_embed_type_num_heads": 3,
                "use_linear_projection": True,
                "upcast_attention": True,
                "only_cross_attention": True,
            },
            ["class_labels"],
        ),
        (
            {
                "class_embed_type": "identity",
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 64,
                "time_embedding_type": "fourier",
                "center_input_sample": True,
                "act_fn": "gelu",
            },
            ["class_labels", "text_embeds", "time_ids"],
        ),
    ],
    ids=["inpainting", "conditioned", "text", "fourier"],
)
def test_other_unet_configurations(change: dict[str, Any], extra: list[str]) -> None:
    capture = assert_equals_pytorch(source_of(unet={**SMALL_UNET, **change}), "unet")
    assert [spec.name for spec in capture.stages["unet"].inputs[3:]] == extra


def test_blocks_that_resample_inside_their_residuals_and_sizes_that_do_not_halve_evenly() -> None:
    blocks = {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    }
    assert_equals_pytorch(source_of(unet={**UNET, **blocks, "sample_size": 8}), "unet")
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None}
    assert_equals_pytorch(source_of(unet={**UNET, **plain, "sample_size": 7}), "unet")


def test_size_batch_and_guidance_are_parameters() -> None:
    source = source_of(unet=SMALL_UNET, vae=VAE)
    options = CaptureOptions(width=24, height=12, batch=3, guidance=False)
    capture = capture_model(source, options)
    assert capture.stages["unet"].inputs[0].shape == (3, 4, 6, 12)
    assert capture.stages["vae"].outputs[0].shape == (3, 3, 12, 24)
    with pytest.raises(CaptureError, match="width 25 is no multiple of 2"):
        capture_model(source, CaptureOptions(width=25))


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(CaptureError, match="no stage controlnet"):
        capture_model(source_of(unet=UNET), stages=["controlnet"])


def test_a_configuration_that_does_not_build_says_which() -> None:
    with pytest.raises(CaptureError, match="unet of tiny does not build"):
        capture_model(source_of(unet={**UNET, "block_out_channels": (16,)}), use_cache=False)
    with pytest.raises(CaptureError, match="UNetMotionModel"):
        capture_model(source_of(unet={"_class_name": "UNetMotionModel"}), use_cache=False)


def test_an_operator_that_cannot_be_converted_is_named_with_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Linear(4, 4)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(self.network(latents))

    def build(source: ModelSource, options: CaptureOptions, stage: str) -> Any:
        with torch.device("meta"):
            network = build_network(source, options, stage)
            inputs = [replace(network.inputs[0], shape=(2, 4))]
            return replace(network, module=Odd().requires_grad_(False), inputs=inputs)

    monkeypatch.setattr(exporter, "build_network", build)
    with pytest.raises(CaptureError, match=r"the stage vae uses operators .*bessel_j0"):
        capture_model(source_of(vae=VAE), use_cache=False)


def test_a_capture_is_loaded_from_the_cache_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(unet=SMALL_UNET)
    fresh = capture_model(source)
    monkeypatch.setattr(exporter, "import_stage", _never)
    lines: list[str] = []
    kept = capture_model(source, progress=lines.append)
    assert "cache" in lines[0]
    assert kept.key == fresh.key
    assert kept.kernels.keys() == fresh.kernels.keys()
    for identity, kernel in fresh.kernels.items():
        assert kept.kernels[identity].func.script() == kernel.func.script()
        assert replace(kept.kernels[identity], func=None).__dict__ == replace(kernel, func=None).__dict__
    ours, theirs = fresh.stages["unet"], kept.stages["unet"]
    assert theirs.weight_transform == ours.weight_transform
    assert all(np.array_equal(a, b) for a, b in zip(ours.constants, theirs.constants, strict=True))
    for name in ("inputs", "outputs", "params", "temps", "calls", "weight_names"):
        assert getattr(theirs, name) == getattr(ours, name), name


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:-400] + b"x" * 400]
)
def test_a_damaged_cache_file_is_captured_again(damage: Callable[[bytes], bytes]) -> None:
    source = source_of(unet=SMALL_UNET)
    fresh = capture_model(source)
    (path,) = (stage_cache.cache_dir() / "captures").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = capture_model(source)
    assert again.kernels.keys() == fresh.kernels.keys()
    assert stage_cache.load(path.stem) is not None


def test_the_key_depends_on_what_shapes_a_capture() -> None:
    source, options = source_of(unet=UNET, vae=VAE), CaptureOptions()
    other_config = source_of(unet={**UNET, "norm_eps": 1e-6}, vae=VAE)
    keys = {
        stage_cache.stage_key(source, options, "unet"),
        stage_cache.stage_key(source, options, "vae"),
        stage_cache.stage_key(source, CaptureOptions(batch=2), "unet"),
        stage_cache.stage_key(source, CaptureOptions(max_binding=1 << 20), "unet"),
        stage_cache.stage_key(other_config, options, "unet"),
        stage_cache.stage_key(replace(source, token_length=12), options, "unet"),
    }
    assert len(keys) == 6
    assert stage_cache.stage_key(replace(source, name="other"), options, "unet") in keys


def _never(*arguments: object) -> None:
    raise AssertionError("the stage should have come from the cache")


@pytest.mark.parametrize("stored", [WeightPrecision.F16, WeightPrecision.Q8, WeightPrecision.Q4])
@pytest.mark.parametrize(("stage", "config"), [("unet", WIDE_UNET), ("clip", {**TEXT, "hidden_size": 32})])
def test_stored_weights_are_decoded_where_kernels_read_them(
    stage: str, config: dict[str, Any], stored: WeightPrecision
) -> None:
    """A capture with stored weights computes what the one with float32 weights does with the decoded values."""
    source = source_of(**{stage: config})
    plain = capture_model(source, CaptureOptions(), [stage])
    options = CaptureOptions(weights=stored)
    capture = capture_model(source, options, [stage])
    captured = capture.stages[stage]
    assert capture_model(source, options, [stage]).stages[stage].weight_formats == captured.weight_formats
    values = np.random.default_rng(0)
    specs = plain.stages[stage].params
    floats = [(0.2 * values.standard_normal(spec.shape)).astype(spec.dtype) for spec in specs]
    encoded = [encode(weight, array) for weight, array in zip(captured.weight_formats, floats, strict=True)]
    params = [array for arrays in encoded for array in arrays]
    assert [(array.shape, str(array.dtype)) for array in params] == [(s.shape, s.dtype) for s in captured.params]
    decoded = [decode(weight, arrays) for weight, arrays in zip(captured.weight_formats, encoded, strict=True)]
    inputs = [
        values.integers(0, 90, spec.shape).astype(spec.dtype)
        if spec.dtype == "int32"
        else values.standard_normal(spec.shape).astype(spec.dtype)
        for spec in captured.inputs
    ]
    got = StageRunner(capture, stage)(inputs, params)
    expected = StageRunner(plain, stage)(inputs, decoded)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    kinds = {weight.precision for weight in captured.weight_formats}
    assert kinds >= {WeightPrecision.F32, WeightPrecision.F16, stored}
    for weight in captured.weight_formats:
        # Biases and factors of norms stay as they are; the first and the last convolution have few channels.
        if sum(extent > 1 for extent in weight.shape) < 2:
            assert weight.precision is WeightPrecision.F32
            continue
        # Stacked weights have their matrices behind the first axis.
        if min(weight.shape[-2:] if len(weight.shape) == 3 else weight.shape[:2]) < 16 or weight.shape[0] in (11, 100):
            assert weight.precision is WeightPrecision.F16
        else:
            assert weight.precision is stored, weight


def test_a_large_embedding_of_half_floats_is_one_binding_up_to_twice_the_rows() -> None:
    bound = 100 * 16 * 4 - 1
    source, options = source_of(clip=TEXT), CaptureOptions(max_binding=bound)
    whole = capture_model(source, replace(options, weights=WeightPrecision.F16), ["clip"], use_cache=False)
    assert any(spec.shape == (100, 16) for kernel in whole.kernels.values() for spec in kernel.params)
    split = assert_equals_pytorch(source, "clip", options)
    assert not any(spec.shape == (100, 16) for kernel in split.kernels.values() for spec in kernel.params)
