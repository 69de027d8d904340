"""How long a model's stages take in PyTorch, as most people run them: what tuned kernels are measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ...devices.measure.job import Sampling
from ...devices.measure.sampling import Sampler
from ...support.errors import UsageError
from ..capture.networks import Network, build_network
from ..capture.sources import ModelSource
from ..ir import CaptureOptions


@dataclass(frozen=True)
class Mode:
    """A way to run a network: ``compiled`` by torch.compile or not, matrix products in TensorFloat-32 or float32."""

    compiled: bool
    tf32: bool

    @property
    def name(self) -> str:
        """As people say it."""
        return ("compile" if self.compiled else "eager") + (", TF32" if self.tf32 else "")


@dataclass(frozen=True)
class StageTime:
    """One stage in one mode. Times in seconds; no ``samples_s`` where it failed, and ``error`` says why.

    ``compile_s`` is how long the first run took, in which torch.compile does its work. ``difference`` is the largest of
    ``|this − eager float32|`` over the stage's output, as a part of the latter's largest value.
    """

    stage: str
    mode: Mode
    samples_s: tuple[float, ...] = ()
    compile_s: float = 0.0
    difference: float | None = None
    error: str = ""


def default_device() -> str:
    """The accelerator that PyTorch reaches, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name(device: str) -> str:
    """What a PyTorch device is called. Raises UsageError where it cannot be used."""
    try:
        torch.zeros(1, device=device).add(1).cpu()
        return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"PyTorch cannot use the device {device!r}: {str(error).strip().splitlines()[0]}",
            "name another with --torch-device, as in cuda, mps or cpu; CUDA needs a PyTorch that was built for it",
        ) from error


def available_modes(device: str, compiled: Sequence[bool] = (False, True)) -> list[Mode]:
    """Every mode that ``device`` has: TensorFloat-32 is there from NVIDIA's compute capability 8.0 on."""
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
    """Times each stage in each mode, one after the other; what fails in one does not keep the others.

    Weights and inputs are random: what a network takes does not depend on them. ``backend`` is torch.compile's.

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
    """Random numbers where the network takes numbers, zeros where it takes ids."""
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
    """The time, and what came out."""
    try:
        with torch.no_grad(), _matrix_products(mode.tf32):
            run = torch.compile(network.module, backend=backend) if mode.compiled else network.module
            clock = _Clock(inputs[0].device)
            begun = time.perf_counter()
            output = _first(run(*inputs)).float().cpu()
            compile_s = time.perf_counter() - begun
            first_s = clock.run(lambda: run(*inputs))
            samples = clock.sample(lambda: run(*inputs), Sampling(), first_s)
    except Exception as error:  # torch.compile raises whatever its many parts do, and memory may not hold a stage
        cause = getattr(error, "inner_exception", error)  # what torch.compile's wrapper is about
        words = str(cause).strip().splitlines()
        return StageTime(stage, mode, error=f"{type(cause).__name__}: {words[0] if words else ''}"), None
    finally:
        torch.compiler.reset()
    difference = None
    if expected is not None:
        largest = float(expected.abs().max())
        difference = float((output - expected).abs().max()) / largest if largest else None
    return StageTime(stage, mode, samples.samples_s, compile_s, difference), output


def _first(output: Any) -> torch.Tensor:
    """The first tensor of what a network gives."""
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


class _Clock(Sampler[Callable[[], object]]):
    """The wall clock around runs whose end is waited for."""

    pass_s: ClassVar[Mapping[str, float]] = {"wall": 10e-3}

    def __init__(self, device: torch.device) -> None:
        super().__init__("wall")
        self._device = device

    def run(self, steps: Callable[[], object], repeat: int = 1) -> float:
        """Calls ``steps`` ``repeat`` times and waits for the device."""
        self._wait()
        begun = time.perf_counter()
        for _ in range(repeat):
            steps()
        self._wait()
        seconds = time.perf_counter() - begun
        self.busy_s += seconds
        return seconds

    def run_cold(self, steps: Callable[[], object], count: int = 1) -> float:
        """Raises NotImplementedError: PyTorch is timed as it runs, one time after the other."""
        raise NotImplementedError("there are no cold runs of PyTorch")

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


@contextmanager
def _matrix_products(tf32: bool) -> Iterator[None]:
    """Has products of float32 matrices, and convolutions, computed in TensorFloat-32, or surely not.

    PyTorch's own default is mixed: convolutions with, matrices without (docs: "Numerical accuracy").
    """
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32, convolutions.allow_tf32 = tf32, tf32
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before
