"""Rewrites of the graph: fewer launches, and what PyTorch computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stage_runner import StageRunner
from torch import nn

from wgtune.tuner.capture import exporter
from wgtune.tuner.capture.networks import Network
from wgtune.tuner.capture.sources import ModelSource
from wgtune.tuner.capture.weights.transform import transform_weights
from wgtune.tuner.ir import Capture, CaptureOptions, TensorSpec

pytestmark = pytest.mark.slow

Captured = Callable[..., tuple[list[str], Capture]]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Captured:
    """Captures a module, asserts that it computes what PyTorch does, and returns the operators of its launches."""

    def capture(module: nn.Module, *shapes: tuple[int, ...], **options: Any) -> tuple[list[str], Capture]:
        inputs = [TensorSpec(f"x{number}", shape, "float32") for number, shape in enumerate(shapes)]
        network = Network(module.eval().requires_grad_(False), inputs, ["result"], prefix="")
        monkeypatch.setattr(exporter, "build_network", lambda *arguments: network)
        source, settings = ModelSource("small", None, {}), CaptureOptions(**options)
        stage, kernels = exporter.import_stage(source, settings, "unet")
        whole = Capture("key", "small", settings, {"unet": stage}, kernels)
        given = [torch.randn(spec.shape) for spec in inputs]
        params = list(transform_weights(stage, dict(module.named_parameters())))
        (result,) = StageRunner(whole, "unet")([tensor.numpy() for tensor in given], params)
        np.testing.assert_allclose(result, module(*given).numpy(), rtol=1e-4, atol=1e-4)
        return [kernels[call.kernel].name.rsplit("_", 1)[0] for call in stage.calls], whole

    torch.manual_seed(0)
    return capture


class Attention(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).flatten(2)) + x


@pytest.mark.parametrize("bias", [False, True])
def test_queries_keys_and_values_are_one_product_and_read_where_they_lie(captured: Captured, bias: bool) -> None:
    launches, capture = captured(Attention(32, bias), (2, 16, 32))
    count = Counter(name.split("_")[0] for name in launches)
    assert count["matmul"] == 2 and not {"copy", "transpose", "concatenate"} & count.keys()
    (joint,) = (kernel for kernel in capture.kernels.values() if kernel.params[-1].shape == (3, 2, 16, 32))
    assert [spec.shape for spec in joint.params[1:-1]] == [(3, 32, 32), (96,)][: 1 + bias]


def test_ranges_that_no_binding_can_begin_at_stay_products_of_their_own(captured: Captured) -> None:
    # A result has 7 × 24 × 4 = 672 bytes, which is no multiple of 256.
    launches, _ = captured(Attention(24, False), (1, 7, 24))
    assert sum(name.startswith("matmul") for name in launches) == 4


class Layers(nn.Module):
    """The sum of the sums of ``count`` layers' squares, so that no layer is continued element by element."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 64) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.softmax(layer(x), -1)[:, :4] for layer in self.layers]).sum(0)


def test_joint_results_and_stacked_weights_keep_to_a_binding(captured: Captured) -> None:
    one = 16 * 64 * 4
    launches, _ = captured(Layers(5), (4, 16))
    assert sum(name.startswith("matmul") for name in launches) == 1
    launches, capture = captured(Layers(5), (4, 16), max_binding=2 * one + 100)
    assert sum(name.startswith("matmul") for name in launches) == 3
    assert max(o.nbytes for call in capture.stages["unet"].calls for o in call.operands) <= 2 * one
    launches, _ = captured(Layers(5), (4, 16), max_binding=2 * one - 1)
    assert sum(name.startswith("matmul") for name in launches) == 5


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(16, 64), nn.Linear(16, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.value(x)) * torch.sigmoid(self.gate(x))


def test_products_whose_kernels_compute_what_follows_stay_their_own(captured: Captured) -> None:
    launches, _ = captured(Gate(), (4, 16))
    assert len(launches) == 2 and all(name.startswith("matmul") for name in launches)


class Block(nn.Module):
    """A picture as a sequence and back, as in a transformer block, with 1 × 1 convolutions or linear layers."""

    def __init__(self, convolutions: bool, bias: bool, stride: int = 1) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.norm, self.end = nn.LayerNorm(24), nn.Conv2d(16, 4, 3)
        if convolutions:
            self.first = nn.Conv2d(16, 24, 1, stride=stride, bias=bias)
            self.last = nn.Conv2d(24, 16, 1, bias=bias)
        else:
            self.first, self.last = nn.Linear(16, 24, bias=bias), nn.Linear(24, 16, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.convolutions:
            y = self.first(x)
            height, width = y.shape[2:]
            y = y.permute(0, 2, 3, 1).reshape(x.shape[0], height * width, 24)
            y = self.norm(y) + y
            y = self.last(y.reshape(x.shape[0], height, width, 24).permute(0, 3, 1, 2))
            return self.end(y + x[:, :, :height, :width])
        y = self.first(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 16))
        y = self.last(self.norm(y) + y)
        return self.end(y.reshape(x.shape[0], *x.shape[2:], 16).permute(0, 3, 1, 2) + x)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("convolutions", [False, True])
def test_products_between_pictures_and_sequences_transpose_themselves(
    captured: Captured, convolutions: bool, bias: bool
) -> None:
    launches, capture = captured(Block(convolutions, bias), (2, 16, 6, 10))
    assert not [name for name in launches if "transpose" in name or "reshape" in name]
    products = [kernel for kernel in capture.kernels.values() if kernel.name.startswith("matmul")]
    assert len(products) == 2
    # What stood behind a convolution or a transpose, the bias and the residual, is still a part of it.
    assert sorted(len(kernel.params) for kernel in products) == ([4, 5] if bias else [3, 4])


def test_a_convolution_that_skips_pixels_stays_one(captured: Captured) -> None:
    launches, _ = captured(Block(True, True, stride=2), (2, 16, 6, 10))
    assert sum(name.startswith("conv2d") for name in launches) == 2
    assert sum("transpose" in name for name in launches) == 1


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.last = nn.Conv2d(16, 24, 1), nn.LayerNorm(24), nn.Conv2d(24, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        sequence = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(y) + self.last(sequence)


def test_a_picture_that_something_else_reads_is_still_made(captured: Captured) -> None:
    launches, _ = captured(Twice(), (2, 16, 6, 10))
    assert sum("transpose" in name for name in launches) == 2


class Upsampled(nn.Module):
    def __init__(self, size: tuple[int, int], other: bool) -> None:
        super().__init__()
        self.size, self.other = size, other
        self.conv = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = nn.functional.interpolate(x, size=self.size, mode="nearest")
        return torch.cat([self.conv(large), large], 1) if self.other else torch.relu(self.conv(large))


@pytest.mark.parametrize("size", [(10, 12), (7, 11)])
def test_a_convolution_of_a_larger_picture_reads_the_small_one(captured: Captured, size: tuple[int, int]) -> None:
    launches, capture = captured(Upsampled(size, False), (2, 8, 5, 6))
    assert len(launches) == 1 and not capture.stages["unet"].temps


def test_a_larger_picture_that_something_else_reads_is_still_made(captured: Captured) -> None:
    launches, _ = captured(Upsampled((10, 12), True), (2, 8, 5, 6))
    assert sum(name.startswith("upsample") for name in launches) == 1


class Unit(nn.Module):
    """A transformer block's gated unit between two layers."""

    def __init__(self, bias: bool, swapped: bool, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.swapped, self.activation = swapped, activation
        self.both, self.last = nn.Linear(16, 48, bias=bias), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        unit = self.activation(value) * gate if self.swapped else value * self.activation(gate)
        return self.last(unit) + x


@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_unit_is_one_kernel(captured: Captured, bias: bool) -> None:
    launches, capture = captured(Unit(bias, False, nn.functional.gelu), (2, 6, 16))
    assert [name.split("_")[0] for name in launches] == ["matmul", "matmul"]
    assert capture.stages["unet"].temps == [2 * 6 * 24 * 4]


@pytest.mark.parametrize("swapped, activation", [(True, nn.functional.gelu), (False, torch.tanh)])
def test_other_gates_are_computed_as_they_are(
    captured: Captured, swapped: bool, activation: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    launches, _ = captured(Unit(True, swapped, activation), (2, 6, 16))
    assert len(launches) == 3


class Joined(nn.Module):
    """A residual block of two joined pictures, as in the second half of a UNet."""

    def __init__(self, window: int = 1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 20)
        self.conv, self.shortcut = nn.Conv2d(20, 8, 3, padding=1), nn.Conv2d(20, 8, window, padding=window // 2)

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([x, kept], 1)
        return self.conv(nn.functional.silu(self.norm(whole))) + self.shortcut(whole)


def test_joined_pictures_are_read_where_they_lie(captured: Captured) -> None:
    # Groups of 5 channels, the third of which has 2 of the first picture and 3 of the second.
    launches, _ = captured(Joined(), (2, 12, 5, 6), (2, 8, 5, 6))
    assert sorted(launches) == ["concatenate_conv2d_add", "concatenate_group_norm_silu", "conv2d_add"]


def test_pictures_that_a_larger_window_reads_are_joined_in_memory(captured: Captured) -> None:
    launches, _ = captured(Joined(window=3), (2, 12, 5, 6), (2, 8, 5, 6))
    assert sum(name == "concatenate" for name in launches) == 1
