"""Schedules of the rules on the adapter: defaults, and parameters drawn at random, give the reference."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from tuning_kernels import group_norm, halved, layer_norm, softmax
from tvm import te, topi

from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Sampling
from wgtune.devices.quirks import Quirks
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import TrialState, WeightPrecision
from wgtune.tuner.capture import sincos as trigonometry
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.capture.weights.reads import with_stored
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel, WeightFormat
from wgtune.tuner.reference.reference import make_case
from wgtune.tuner.schedule_rules import rule_spaces

TIER = TIERS["default"]
DRAWS = 3


def kernel_of(*tensors: te.Tensor) -> Kernel:
    return make_kernel("kernel", te.create_prim_func(list(tensors)))


def matmul(m: int, n: int, k: int, batch: tuple[int, ...] = ()) -> Kernel:
    a, b, bias = te.placeholder((*batch, m, k)), te.placeholder((k, n)), te.placeholder((n,))
    term = te.reduce_axis((0, k))
    total = te.compute((*batch, m, n), lambda *i: te.sum(a(*i[:-1], term) * b[term, i[-1]], term))
    return kernel_of(a, b, bias, topi.add(total, bias))


def stacked(count: int, m: int, n: int, k: int) -> Kernel:
    """Products of one operand with several."""
    a, b, bias = te.placeholder((2, m, k)), te.placeholder((count, k, n)), te.placeholder((count * n,))
    term = te.reduce_axis((0, k))
    total = te.compute((count, 2, m, n), lambda p, h, i, c: te.sum(a[h, i, term] * b[p, term, c], term))
    return kernel_of(a, b, bias, te.compute(total.shape, lambda p, h, i, c: total[p, h, i, c] + bias[p * n + c]))


def to_sequence(channels: int, width: int, pixels: int) -> Kernel:
    """A product over the channels of a picture that stores them last."""
    x, w, bias = te.placeholder((2, channels, pixels)), te.placeholder((width, channels)), te.placeholder((width,))
    term = te.reduce_axis((0, channels))
    total = te.compute((2, pixels, width), lambda b, i, c: te.sum(x[b, term, i] * w[c, term], term))
    return kernel_of(x, w, bias, topi.add(total, bias))


def to_picture(width: int, channels: int, pixels: int) -> Kernel:
    """The inverse of `to_sequence`, plus a picture."""
    x, w = te.placeholder((2, pixels, width)), te.placeholder((channels, width))
    bias, other = te.placeholder((channels, 1)), te.placeholder((2, channels, pixels))
    term = te.reduce_axis((0, width))
    total = te.compute(other.shape, lambda b, c, i: te.sum(w[c, term] * x[b, i, term], term))
    return kernel_of(x, w, bias, other, topi.add(topi.add(total, bias), other))


def gated(rows: int, results: int, terms: int) -> Kernel:
    """Values times the sigmoids of gates, which are neighbouring columns of one product."""
    a, b, bias = te.placeholder((2, rows, terms)), te.placeholder((terms, 2 * results)), te.placeholder((2 * results,))
    term = te.reduce_axis((0, terms))
    both = te.compute((2, rows, 2 * results), lambda n, i, c: te.sum(a[n, i, term] * b[term, c], term))

    def unit(n: Any, i: Any, c: Any) -> Any:
        value, gate = (both[n, i, column] + bias[column] for column in (2 * c, 2 * c + 1))
        return value * te.sigmoid(gate)

    return kernel_of(a, b, bias, te.compute((2, rows, results), unit))


def scores(queries: int, keys: int, heads: int, width: int) -> Kernel:
    """Products of queries and keys, both (batch, position, head, channel)."""
    q, k = te.placeholder((1, queries, heads, width)), te.placeholder((1, keys, heads, width))
    term = te.reduce_axis((0, width))
    total = te.compute((1, heads, queries, keys), lambda b, h, i, j: te.sum(q[b, i, h, term] * k[b, j, h, term], term))
    return kernel_of(q, k, te.compute(total.shape, lambda *i: total(*i) * 0.125))


def values(queries: int, keys: int, heads: int, width: int) -> Kernel:
    """Sums of values weighted by scores."""
    s, v = te.placeholder((1, heads, queries, keys)), te.placeholder((1, keys, heads, width))
    term = te.reduce_axis((0, keys))
    total = te.compute((1, queries, heads, width), lambda b, i, h, c: te.sum(s[b, h, i, term] * v[b, term, h, c], term))
    return kernel_of(s, v, total)


def conv(channels: int, filters: int, size: int, window: int, stride: int = 1, padding: int = 1) -> Kernel:
    x, w = te.placeholder((2, channels, size, size)), te.placeholder((filters, channels, window, window))
    bias = te.placeholder((1, filters, 1, 1))
    return kernel_of(x, w, bias, topi.add(topi.nn.conv2d_nchw(x, w, stride, padding, 1), bias))


def masked_softmax(batch: int, rows: int, elements: int) -> Kernel:
    x, mask = te.placeholder((batch, rows, elements)), te.placeholder((rows, elements))
    return kernel_of(x, mask, topi.nn.softmax(topi.add(x, mask)))


def wide_layer_norm(rows: int, elements: int) -> Kernel:
    """With 64-bit indices, as capture has them."""
    x, gain, bias = te.placeholder((1, rows, elements)), te.placeholder((elements,)), te.placeholder((elements,))
    normal = topi.nn.layer_norm(x, gain, bias, [2], 1e-5)
    return make_kernel("kernel", te.create_prim_func([x, gain, bias, normal], "int64"))


def permuted(shape: tuple[int, ...], axes: tuple[int, ...]) -> Kernel:
    x = te.placeholder(shape)
    return kernel_of(x, topi.transpose(x, axes))


def transposed_sum() -> Kernel:
    x, y = te.placeholder((1, 64, 12)), te.placeholder((1, 12, 64))
    return kernel_of(x, y, topi.add(topi.transpose(x, (0, 2, 1)), y))


def concatenated(first: tuple[int, ...], second: tuple[int, ...], axis: int) -> Kernel:
    x, y = te.placeholder(first), te.placeholder(second)
    return kernel_of(x, y, topi.concatenate([x, y], axis))


def norm_of_joined(groups: int, *shape: int) -> Kernel:
    """A group norm over the channels of two pictures of ``shape``, then SiLU."""
    x, y = te.placeholder(shape), te.placeholder(shape)
    gain, bias = te.placeholder((2 * shape[1],)), te.placeholder((2 * shape[1],))
    joined = topi.concatenate([x, y], 1)
    normal = topi.nn.group_norm(joined, gain, bias, groups, 1, list(range(2, len(shape))))
    return kernel_of(x, y, gain, bias, topi.multiply(normal, topi.sigmoid(normal)))


def padded(*shape: int) -> Kernel:
    x = te.placeholder(shape)
    return kernel_of(x, topi.nn.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)))


def looked_up() -> Kernel:
    table, ids = te.placeholder((5000, 768)), te.placeholder((77,), "int32")
    return kernel_of(table, ids, topi.take(table, ids, axis=0))


def error_function(*shape: int) -> Kernel:
    x = te.placeholder(shape)
    return kernel_of(x, te.compute(shape, lambda *i: x(*i) * 0.5 * (1.0 + te.erf(x(*i) * 0.70710678))))


def sinusoids() -> Kernel:
    """With integers that become negative, as vectors."""
    x = te.placeholder((77, 160))
    return kernel_of(x, topi.add(trigonometry.sin(x), trigonometry.cos(x)))


def doubled() -> Kernel:
    x = te.placeholder((1, 3, 8, 8))
    return kernel_of(x, te.compute((1, 3, 16, 16), lambda n, c, h, w: x[n, c, h // 2, w // 2]))


F16, Q8, Q4 = WeightPrecision.F16, WeightPrecision.Q8, WeightPrecision.Q4


def stored(kernel: Kernel, precision: WeightPrecision, terms: tuple[int, int] = (0, 0)) -> Kernel:
    """The kernel with its second parameter, the weight, stored in another format."""
    weight = WeightFormat(kernel.params[1].shape, precision, terms)
    formats = [weight if n == 1 else None for n in range(len(kernel.params) - 1)]
    return make_kernel("kernel", with_stored(kernel.func, formats, [None]))


KERNELS = {
    "linear": matmul(64, 96, 48),
    "linear of two texts of 77": matmul(77, 64, 40, (2,)),
    "three products of one operand": stacked(3, 64, 24, 40),
    "gated unit": gated(64, 48, 32),
    "gated unit of odd sizes": gated(7, 5, 9),
    "two rows": matmul(2, 640, 96),
    "picture to sequence": to_sequence(24, 40, 128),
    "picture to sequence, odd sizes": to_sequence(5, 7, 99),
    "sequence to picture": to_picture(40, 24, 128),
    "sequence to picture, odd sizes": to_picture(7, 5, 99),
    "prime sizes": matmul(13, 7, 11),
    "transposed": scores(64, 77, 2, 40),
    "transposed, vectors both ways": scores(32, 64, 4, 16),
    "attention values": values(64, 77, 2, 40),
    "1 × 1 convolution": conv(24, 32, 16, 1, padding=0),
    "3 × 3 convolution": conv(16, 32, 16, 3),
    "stride 2": conv(16, 16, 16, 3, 2),
    "three filters": conv(8, 3, 24, 3),
    "odd size": conv(5, 7, 9, 3),
    "5 × 5 without padding": conv(4, 8, 12, 5, padding=0),
    "linear, half floats": stored(matmul(64, 96, 48), F16),
    "prime sizes, half floats": stored(matmul(13, 7, 11), F16),
    "1 × 1 convolution, half floats": stored(conv(24, 32, 16, 1, padding=0), F16),
    "3 × 3 convolution, half floats": stored(conv(16, 32, 16, 3), F16),
    "odd size, half floats": stored(conv(5, 7, 9, 3), F16),
    "linear, 8 bits": stored(matmul(64, 96, 64), Q8, (0, 1)),
    "odd columns, 8 bits": stored(matmul(16, 35, 32), Q8, (0, 1)),
    "1 × 1 convolution, 8 bits": stored(conv(32, 48, 16, 1, padding=0), Q8, (1, 4)),
    "3 × 3 convolution, 8 bits": stored(conv(32, 32, 16, 3), Q8, (1, 4)),
    "linear, 4 bits": stored(matmul(64, 96, 64), Q4, (0, 1)),
    "odd columns, 4 bits": stored(matmul(16, 35, 32), Q4, (0, 1)),
    "1 × 1 convolution, 4 bits": stored(conv(64, 16, 16, 1, padding=0), Q4, (1, 4)),
    "3 × 3 convolution, 4 bits": stored(conv(32, 32, 16, 3), Q4, (1, 4)),
    "linear, halves": halved(matmul(64, 96, 48)),
    "gated unit, halves": halved(gated(64, 48, 32)),
    "sequence to picture, halves": halved(to_picture(40, 24, 128)),
    "transposed, halves": halved(scores(64, 77, 2, 40)),
    "attention values, halves": halved(values(64, 77, 2, 40)),
    "3 × 3 convolution, halves": halved(conv(16, 32, 16, 3)),
    "odd size, halves": halved(conv(5, 7, 9, 3)),
    "softmax, halves": halved(masked_softmax(3, 16, 64)),
    "layer norm, halves": halved(wide_layer_norm(77, 768)),
    "group norm, halves": halved(group_norm(4, 2, 12, 8, 8)),
    "group norm longer than registers, halves": halved(group_norm(2, 1, 4, 128, 128)),
    "transpose, halves": halved(permuted((2, 64, 24), (0, 2, 1))),
    "concatenation, halves": halved(concatenated((2, 12, 5, 7), (2, 8, 5, 7), 1)),
    "softmax of 77": softmax(6, 77, 77),
    "softmax of 13": softmax(5, 13),
    "softmax of long rows": softmax(2, 4096),
    "softmax longer than registers": softmax(2, 25_600),
    "softmax of a prime length": softmax(8, 1021),
    "masked softmax": masked_softmax(3, 16, 64),
    "layer norm": layer_norm(77, 768),
    "layer norm of 13": layer_norm(3, 13),
    "layer norm of one row": layer_norm(1, 1280),
    "group norm": group_norm(4, 2, 12, 8, 8),
    "group norm, odd size": group_norm(4, 2, 12, 5, 7),
    "group norm of joined pictures": norm_of_joined(8, 2, 32, 16, 16),
    "group norm across joined pictures": norm_of_joined(3, 1, 9, 5, 8),
    "group norm longer than registers": group_norm(2, 1, 4, 128, 128),
    "transpose": permuted((2, 64, 24), (0, 2, 1)),
    "transpose of 77": permuted((12, 77, 64), (1, 0, 2)),
    "transpose of prime sizes": permuted((3, 13, 7), (0, 2, 1)),
    "channels last": permuted((2, 8, 16, 24), (0, 2, 3, 1)),
    "reversed": permuted((2, 3, 4, 5), (3, 2, 1, 0)),
    "transpose and sum": transposed_sum(),
    "concatenation": concatenated((2, 12, 5, 7), (2, 8, 5, 7), 1),
    "concatenation of odd lengths": concatenated((2, 13), (2, 7), 1),
    "padding": padded(1, 3, 13, 11),
    "look-up": looked_up(),
    "error function of 13": error_function(13),
    "error function of 1": error_function(1),
    "sine and cosine": sinusoids(),
    "doubled size": doubled(),
}


MOST_PRIVATE = 256
"""Elements of an array that a thread may need: its results, and operands that it copies to registers."""


def _largest_private_array(wgsl: str) -> int:
    """Return the elements of the largest array that each thread has for itself."""
    found = re.findall(r"^  var \w+ : array<(?:vec(\d)<)?\w+>?, (\d+)>", wgsl, re.MULTILINE)
    return max((int(width or 1) * int(count) for width, count in found), default=0)


@pytest.mark.parametrize("name", KERNELS)
def test_every_point_of_a_rule_gives_the_reference(worker: Worker, tmp_path: Path, name: str) -> None:
    kernel = KERNELS[name]
    halves = kernel.params[-1].dtype == "float16"
    if halves and "shader-f16" not in worker.device.features:
        pytest.skip("the adapter has no half floats")
    spaces = rule_spaces(schedulable_module(kernel), workgroup_limits(TIER))
    assert spaces
    few = workgroup_limits(TIER, Quirks(lanes=64, wave=8, avoids_workgroup_memory=True))
    alone = {space.rule: space.defaults for space in rule_spaces(schedulable_module(kernel), few)}
    case = make_case(kernel, 0, tmp_path)
    chance = random.Random(name)
    for space in spaces:
        points = [space.defaults, alone[space.rule]]
        for _ in range(5000):
            point = {p.name: chance.choice(p.candidates) for p in space.parameters}
            if space.fits(point) and len(points) <= DRAWS + 1:
                points.append(point)
        for point in points:
            program = emit_wgsl(space.schedule(point).mod, TIER)
            assert len(program.dispatches) == 1, space.label(point)
            assert program.needs.features == (("shader-f16",) if halves else ())
            assert _largest_private_array(program.shaders[0].source) <= MOST_PRIVATE, space.label(point)
            sampling = Sampling(min_samples=1, min_seconds=0.0)
            result = worker.measure(MeasureJob(program, case.path, case.rtol, case.atol, sampling=sampling))
            assert result.state is TrialState.OK, f"{space.label(point)}: {result.error}"
