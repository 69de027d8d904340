"""Latency of a model's stages in PyTorch, eager and compiled, to compare tuned kernels with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ...devices.measure.job import Sampling
from ...devices.measure.sampling import Sampler
from ...support.errors import UsageError, first_line
from ..capture.networks import Network, build_network
from ..capture.sources import ModelSource
from ..ir import CaptureOptions


@dataclass(frozen=True)
class Mode:
    """How a network is run: ``compiled`` by torch.compile or not, matrix products in TensorFloat-32 or float32."""

    compiled: bool
    tf32: bool

    @property
    def name(self) -> str:
        """The mode as reports print it."""
        return ("compile" if self.compiled else "eager") + (", TF32" if self.tf32 else "")


@dataclass(frozen=True)
class StageTime:
    """The latency of one stage in one mode, in seconds.

    Attributes:
        stage: name of the stage.
        mode: how it was run.
        samples_s: one value per sample; empty if the stage failed.
        compile_s: duration of the first run, in which torch.compile does its work.
        difference: largest ``|this − eager float32|`` over the output, relative to the latter's largest value; None for
            eager float32 itself, and if that failed.
        error: why the stage failed, "" if it did not.
    """

    stage: str
    mode: Mode
    samples_s: tuple[float, ...] = ()
    compile_s: float = 0.0
    difference: float | None = None
    error: str = ""


def default_device() -> str:
    """Return the name of the accelerator that PyTorch can use, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name(device: str) -> str:
    """Return the model name of a PyTorch device.

    Raises:
        UsageError: PyTorch cannot use the device.
    """
    try:
        torch.zeros(1, device=device).add(1).cpu()
        return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"PyTorch cannot use the device {device!r}: {first_line(error)}",
            "name another with --torch-device, as in cuda, mps or cpu; CUDA needs a PyTorch that was built for it",
        ) from error


def available_modes(device: str, compiled: Sequence[bool] = (False, True)) -> list[Mode]:
    """Return the modes that ``device`` supports: TensorFloat-32 needs NVIDIA's compute capability 8.0 or later."""
    tf32 = torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return [Mode(one, fast) for one in compiled for fast in ((False, True) if tf32 else (False,))]


def time_stages(
    source: ModelSource,
    options: CaptureOptions,
    device: str,
    modes: Sequence[Mode],
    report: Callable[[str, float], None],
    stages: Sequence[str] | None = None,
    backend: str = "inductor",
) -> Iterator[StageTime]:
    """Measure each stage in each mode and yield the results one by one; a failure does not stop the others.

    Weights and inputs are random, because a network's latency does not depend on them.

    Args:
        source: the model.
        options: image size, batch and guidance.
        device: PyTorch's name of the device.
        modes: how to run each stage.
        report: told before each measurement: what is measured, and the fraction that is done, from 0 to 1.
        stages: names of the stages; None for all.
        backend: of torch.compile.

    Raises:
        CaptureError: the model has no such stage, or a stage's configuration does not build.
    """
    wanted = source.select_stages(stages)
    total = len(wanted) * len(modes)
    for number, stage in enumerate(wanted):
        report(f"{stage}: making weights", number / len(wanted))
        network = build_network(source, options, stage, device)
        inputs = _inputs(network)
        expected: torch.Tensor | None = None
        for index, mode in enumerate(modes):
            report(f"{stage}, {mode.name}", (number * len(modes) + index) / total)
            found, output = _time(stage, network, inputs, mode, expected, backend)
            if mode == Mode(compiled=False, tf32=False):
                expected = output
            yield found


def _inputs(network: Network) -> tuple[torch.Tensor, ...]:
    """Return inputs of the network: random numbers for floating-point tensors, zeros for token ids."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(zeros.shape, generator=generator).to(zeros) if zeros.is_floating_point() else zeros
        for zeros in network.example_inputs()
    )


def _time(
    stage: str,
    network: Network,
    inputs: tuple[torch.Tensor, ...],
    mode: Mode,
    expected: torch.Tensor | None,
    backend: str,
) -> tuple[StageTime, torch.Tensor | None]:
    """Measure one stage in one mode; return the result and the stage's output as float32 on the CPU."""
    try:
        with torch.no_grad(), _matrix_products(mode.tf32):
            run = torch.compile(network.module, backend=backend) if mode.compiled else network.module
            clock = _Clock(inputs[0].device)
            begun = time.perf_counter()
            output = _first(run(*inputs)).float().cpu()
            compile_s = time.perf_counter() - begun
            first_s = clock.run(lambda: run(*inputs))
            samples = clock.sample(lambda: run(*inputs), Sampling(), first_s)
    except Exception as error:  # torch.compile raises many kinds of errors, and memory may not suffice
        cause = getattr(error, "inner_exception", error)  # the error inside torch.compile's wrapper
        lines = str(cause).strip().splitlines()
        return StageTime(stage, mode, error=f"{type(cause).__name__}: {lines[0] if lines else ''}"), None
    finally:
        torch.compiler.reset()
    difference = None
    if expected is not None:
        largest = float(expected.abs().max())
        difference = float((output - expected).abs().max()) / largest if largest else None
    return StageTime(stage, mode, samples.samples_s, compile_s, difference), output


def _first(output: Any) -> torch.Tensor:
    """Return the first tensor of a network's output."""
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


class _Clock(Sampler[Callable[[], object]]):
    """Wall-clock time of runs, each waited for to end on the device."""

    pass_s: ClassVar[Mapping[str, float]] = {"wall": 10e-3}

    def __init__(self, device: torch.device) -> None:
        super().__init__("wall")
        self._device = device

    def run(self, steps: Callable[[], object], repeat: int = 1) -> float:
        """Call ``steps`` ``repeat`` times, wait for the device, and return the seconds."""
        self._wait()
        begun = time.perf_counter()
        for _ in range(repeat):
            steps()
        self._wait()
        seconds = time.perf_counter() - begun
        self.busy_s += seconds
        return seconds

    def run_cold(self, steps: Callable[[], object], count: int = 1) -> float:
        """Raise NotImplementedError: PyTorch is measured with warm caches only."""
        raise NotImplementedError("there are no cold runs of PyTorch")

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


@contextmanager
def _matrix_products(tf32: bool) -> Iterator[None]:
    """Switch TensorFloat-32 on or off for matrix products and convolutions of float32, in the ``with`` block.

    PyTorch's default is mixed: convolutions use it, matrix products do not (PyTorch docs, "Numerical accuracy").
    """
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32, convolutions.allow_tf32 = tf32, tf32
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before
