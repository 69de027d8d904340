"""Which kernels of a model a request names, and what a session checks before its first trial."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from wgtune.support.errors import UsageError
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Stage
from wgtune.tuner.session.registration import select_kernels


def kernel(digits: str, name: str) -> Kernel:
    func: Any = None  # nothing here lowers it
    return Kernel(digits.ljust(64, "0"), name, "", func, (), (), 1.0, 1)


MATMUL, CONV, CONV_RELU = kernel("a1b2c3", "matmul_a1b2"), kernel("a1b2d4", "conv2d_a1b2"), kernel("ff", "conv2d_relu")
STAGES = {
    name: Stage(name, [], [], [], [], [], [Call(one.id, ()) for one in launches])
    for name, launches in {"clip": [MATMUL], "unet": [CONV_RELU, MATMUL, CONV, CONV]}.items()
}
CAPTURE = Capture("key", "demo", CaptureOptions(), STAGES, {one.id: one for one in (CONV, MATMUL, CONV_RELU)})


@pytest.mark.parametrize(
    ("stages", "patterns", "expected"),
    [
        (None, None, [MATMUL, CONV_RELU, CONV]),
        (["unet"], None, [CONV_RELU, MATMUL, CONV]),
        (None, ["conv2d*"], [CONV_RELU, CONV]),
        (["clip"], ["matmul_a1b2"], [MATMUL]),
        (None, ["A1B2C3"], [MATMUL]),
        (None, [CONV.id, "matmul*"], [MATMUL, CONV]),
    ],
)
def test_kernels_are_selected_in_order_of_first_launch(
    stages: list[str] | None, patterns: list[str] | None, expected: list[Kernel]
) -> None:
    assert select_kernels(CAPTURE, stages, patterns) == expected


@pytest.mark.parametrize(
    ("stages", "patterns", "message"),
    [
        (["vae"], None, "demo has no stage vae"),
        (["clip"], ["conv2d*"], r"no kernel of demo is called 'conv2d\*'"),
        (None, ["conv2d*", "softmax"], "no kernel of demo is called 'softmax'"),
        (None, ["a1b2c"], "no kernel of demo is called 'a1b2c'"),
    ],
    ids=["stage", "pattern of another stage", "one of two patterns", "too few digits of an id"],
)
def test_what_names_no_kernel_is_refused(stages: list[str] | None, patterns: list[str] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_kernels(CAPTURE, stages, patterns)


def test_a_request_can_be_made_without_tvm() -> None:
    """A process that only hands requests to others, such as the fleet's, need not load TVM."""
    modules = "wgtune.tuner.session.request, wgtune.tuner.session.events"
    code = f"import sys, {modules}; print({{'tvm', 'torch'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
