"""Small kernels, and a model of them, for tests of search and sessions."""

from __future__ import annotations

import hashlib

from tvm import te, topi

from wgtune.support.enums import WeightPrecision
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.capture.weights.reads import with_stored
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Stage, WeightFormat


def matmul(m: int = 64, n: int = 96, k: int = 48) -> Kernel:
    """A matrix product with a bias, as a linear layer has it."""
    a, b, c = te.placeholder((m, k)), te.placeholder((k, n)), te.placeholder((n,))
    return make_kernel("matmul_add", te.create_prim_func([a, b, c, topi.add(topi.matmul(a, b), c)]))


def conv2d() -> Kernel:
    """A padded 3 × 3 convolution with bias and relu."""
    x, w, b = te.placeholder((2, 16, 16, 16)), te.placeholder((32, 16, 3, 3)), te.placeholder((1, 32, 1, 1))
    out = topi.nn.relu(topi.add(topi.nn.conv2d_nchw(x, w, 1, 1, 1), b))
    return make_kernel("conv2d_add_relu", te.create_prim_func([x, w, b, out]))


def softmax(*shape: int) -> Kernel:
    """A softmax over rows: several stages, which a schedule may leave as several shaders."""
    x = te.placeholder(shape or (12, 77, 77))
    return make_kernel("softmax", te.create_prim_func([x, topi.nn.softmax(x)]))


def layer_norm(rows: int, elements: int) -> Kernel:
    """A layer norm with gain and bias."""
    x, gain, bias = te.placeholder((1, rows, elements)), te.placeholder((elements,)), te.placeholder((elements,))
    return make_kernel("layer_norm", te.create_prim_func([x, gain, bias, topi.nn.layer_norm(x, gain, bias, [2], 1e-5)]))


def group_norm(groups: int, *shape: int) -> Kernel:
    """A group norm over channels and pixels with gain and bias, then SiLU, as residual blocks have it."""
    x, gain, bias = te.placeholder(shape), te.placeholder((shape[1],)), te.placeholder((shape[1],))
    normal = topi.nn.group_norm(x, gain, bias, groups, 1, list(range(2, len(shape))))
    out = topi.multiply(normal, topi.sigmoid(normal))
    return make_kernel("group_norm_silu", te.create_prim_func([x, gain, bias, out]))


def transpose() -> Kernel:
    """A transpose, of which MetaSchedule knows four schedules."""
    x = te.placeholder((12, 77, 64))
    return make_kernel("transpose", te.create_prim_func([x, topi.transpose(x, (1, 0, 2))]))


def three_elements() -> Kernel:
    """A kernel so small that there are half a dozen programs of it."""
    x = te.placeholder((3,))
    return make_kernel("exp", te.create_prim_func([x, topi.exp(x)]))


def halved(kernel: Kernel) -> Kernel:
    """The kernel with half floats where it reads and writes more than a vector, as between kernels of a model."""
    formats = [
        WeightFormat(p.shape, WeightPrecision.F16) if p.dtype == "float32" and sum(n > 1 for n in p.shape) > 1 else None
        for p in kernel.params
    ]
    return make_kernel(kernel.name.rpartition("_")[0], with_stored(kernel.func, formats[:-1], formats[-1:]))


def capture_of(*kernels: Kernel, calls: int = 1) -> Capture:
    """A model of one stage, ``unet``, that launches each kernel ``calls`` times; it can be tuned, not run."""
    launches = [Call(kernel.id, ()) for kernel in kernels for _ in range(calls)]
    stage = Stage("unet", [], [], [], [], [], launches)
    key = hashlib.sha256("".join(kernel.id for kernel in kernels).encode()).hexdigest()
    return Capture(key, "small", CaptureOptions(), {"unet": stage}, {kernel.id: kernel for kernel in kernels})
