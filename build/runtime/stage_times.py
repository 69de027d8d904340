"""Times of a bundle's stages as they run, beside the sum of their dispatches run one by one.

What was tuned is the time of each kernel alone; what a visitor waits for is the whole. The two are timed in the same
process, in turns, so that whatever else the machine does concerns both.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ...devices.device import Device
from ...devices.measure.job import Sampling
from ...devices.webgpu import gpu as layer
from ...devices.webgpu.driver_threads import pin_driver_threads
from ...devices.webgpu.peaks import measure_launch_s
from ...devices.webgpu.timing import Timer
from ..format.documents import StageTime
from ..format.manifest import TOKENIZER
from ..format.plan import Plan
from ..format.reader import Bundle, BundleProgram
from ..format.tokenizer import load_tokenizer, token_ids
from .webgpu_runtime import WebGpuRuntime

PARTS = {"clip": ("clip",), "unet": ("schedule", "unet", "guide"), "vae": ("schedule", "vae", "image")}
"""The stages that run together, by the network that takes most of their time."""

_ONE_SAMPLE = Sampling(warmup=0, max_samples=1, min_samples=1)

_CALLS = 3
"""UNet calls of a picture that is drawn to take times. The first one's is not taken."""


def measure_stages(
    bundle: Bundle,
    device: Device,
    rounds: int = 3,
    progress: Callable[[str, float], None] = lambda what, done: None,
    program: BundleProgram | None = None,
) -> list[StageTime]:
    """Time each part of a picture as a whole and dispatch by dispatch, in turns.

    Args:
        bundle: what to time.
        device: where; of the runtime wgpu.
        rounds: how often each is timed.
        progress: receives the current step and the share of it that is done, from 0 to 1.
        program: one of the bundle's that the device can run; by default the first.

    Raises:
        BundleError: a file of the bundle is damaged.
        DeviceError: the device lacks a limit or feature, or fails.
    """
    features = [name for name in device.features if name == "timestamp-query"]
    with WebGpuRuntime(bundle, device, progress, features, program) as runtime:
        pin_driver_threads(device, runtime.gpu)
        timer = Timer(runtime.gpu)
        launch_s = measure_launch_s(timer, runtime.gpu)
        parts = {
            name: _Part(timer, runtime.steps(*stages), _kinds(runtime.program.plan, stages))
            for name, stages in PARTS.items()
        }
        _draw(bundle, runtime)  # a driver may compile at the first run
        for number in range(rounds):
            # What a picture leaves in the buffers is also what the dispatches alone compute with: with other values,
            # such as denormal ones, a CPU may take many times as long.
            _draw(bundle, runtime)
            timing = runtime.timing
            assert timing is not None
            parts["clip"].run_s.append(timing.text_s)
            parts["unet"].run_s.append(statistics.median(timing.step_s[1:] or timing.step_s))
            parts["vae"].run_s.append(timing.decode_s)
            for index, part in enumerate(parts.values()):
                part.time_dispatches()
                progress("timing its stages", (number + (index + 1) / len(parts)) / rounds)
        return [part.result(name, launch_s, timer.kind == "timestamp") for name, part in parts.items()]


def _draw(bundle: Bundle, runtime: WebGpuRuntime) -> None:
    """Draw a picture in few steps."""
    image = bundle.manifest.image
    offered = bundle.manifest.schedulers.tables[bundle.default_sampler.value].runs
    steps = min((number for number in offered if number >= _CALLS), default=max(offered))
    run = bundle.run(bundle.default_sampler, steps)
    shape = (int(run.draws.sum()), image.batch, *image.latent)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    ids = token_ids(load_tokenizer(bundle.read(TOKENIZER)), bundle.manifest.prompt, "a fox in the snow")
    runtime.draw([ids] * image.batch * (2 if image.guidance else 1), noise, run, 7.5 if image.guidance else 1.0)


def _kinds(plan: Plan, stages: Sequence[str]) -> list[Hashable]:
    """Return for each dispatch what its time depends on: shader, grid and constants, whatever its buffers."""
    return [
        (one.shader, one.grid, tuple(plan.buffers[place.buffer].words for place in one.bindings))
        for stage in stages
        for one in plan.stages[stage]
    ]


class _Part:
    """One part of a picture, and the times taken of it. ``kinds`` are equal for steps that take the same time."""

    def __init__(self, timer: Timer, steps: list[layer.Step], kinds: list[Hashable]) -> None:
        self._timer, self._steps = timer, steps
        self._count = Counter(kinds)
        self._distinct = dict(zip(kinds, steps, strict=True))
        self._gpu_s: list[float] = []
        self._alone_s: dict[Hashable, list[float]] = {key: [] for key in self._distinct}
        self.run_s: list[float] = []

    def time_dispatches(self) -> None:
        """Time each dispatch by itself, and all of them in one pass by the GPU's clock."""
        for key, step in self._distinct.items():
            self._alone_s[key] += self._timer.sample([step], _ONE_SAMPLE, self._timer.run([step])).samples_s
        self._gpu_s.append(self._timer.run(self._steps))

    def result(self, name: str, launch_s: float, stamped: bool) -> StageTime:
        """Return the medians; ``stamped`` tells whether the timer reads the GPU's clock."""
        return StageTime(
            stage=name,
            dispatches=len(self._steps),
            run_s=statistics.median(self.run_s),
            alone_s=sum(self._count[key] * statistics.median(times) for key, times in self._alone_s.items()),
            gpu_s=statistics.median(self._gpu_s) if stamped else None,
            launch_s=launch_s * len(self._steps),
        )
