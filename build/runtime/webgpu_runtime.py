"""Runs a bundle on this machine's GPU through wgpu: creates everything once, then runs the plan's dispatches.

Nothing is read back between steps. After each step the runtime waits for the queue, so that progress is accurate and a
run can be stopped; the next step's commands are encoded while the GPU works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...devices.webgpu.gpu import (
    Step,
    bind,
    encode,
    make_pipeline,
    open_device,
    read,
    storage_buffer,
    uniform_buffer,
    write,
)
from ...support.errors import BundleError, DeviceError
from ..format.plan import BufferRange, PlanDispatch
from ..format.reader import Bundle, BundleProgram
from ..format.sampler_tables import SamplerRun
from .program_selection import select_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...devices.device import Device


class RunStopped(Exception):
    """The caller's ``on_step`` returned False."""


@dataclass(frozen=True)
class RunTiming:
    """Wall-clock seconds of one batch: text encoder, each UNet call, decoding."""

    text_s: float
    step_s: tuple[float, ...]
    decode_s: float

    @property
    def total_s(self) -> float:
        """Return the sum of all parts."""
        return self.text_s + sum(self.step_s) + self.decode_s


class WebGpuRuntime:
    """A program of a bundle loaded onto one device; a context manager that frees the GPU memory.

    ``timing`` is of the last batch; a device's first batch includes what its driver compiles lazily.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        progress: Callable[[str, float], None] | None = None,
        features: Sequence[str] = (),
        program: BundleProgram | None = None,
    ) -> None:
        """Load a program of ``bundle``: open ``device``, upload the weights, compile the shaders.

        ``progress`` receives the current step and the share of it that is done, from 0 to 1. ``features`` are enabled
        beside the program's own. ``program`` is one that the device can run; by default the first.

        Raises:
            BundleError: a file of the bundle is damaged.
            DeviceError: the device is gone, has less than the bundle needs, or refuses a shader.
        """
        self.bundle = bundle
        self.device = device
        self.timing = RunTiming(0.0, (), 0.0)
        tell = progress or (lambda what, done: None)
        self.program = program or select_program(bundle, device)
        needs = self.program.info.requires
        limits = {name: value for name, value in needs.limits.items() if name in device.limits}
        with _translated_errors(device):
            self._gpu = open_device(device, limits, dict.fromkeys((*needs.features, *features)))
            self._buffers = self._fill_buffers(tell)
            self._stages = self._make_stages(tell)
        self._names = self.program.plan.names

    def __enter__(self) -> WebGpuRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the runtime's memory on the device; it cannot draw afterwards."""
        self._stages.clear()
        self._buffers.clear()
        self._gpu.destroy()

    def draw(
        self,
        texts: Sequence[Sequence[int]],
        noise: np.ndarray,
        run: SamplerRun,
        guidance: float,
        on_step: Callable[[int, int], bool | None] | None = None,
        decode: bool = True,
    ) -> None:
        """Draw one batch; `pixels`, `image` and `latents` read the results from the device.

        Args:
            texts: token ids, one row per slot of the context: the batch's prompts, with guidance preceded by as many
                negative ones.
            noise: float32 [draws, batch, channels, height, width] of unit variance: what the run draws, in order.
            run: the sampler's recurrence.
            guidance: the guidance scale, 1 for none.
            on_step: receives the number of UNet calls done, and of all; may return False to stop.
            decode: whether to run the VAE; without it only the latents are computed.

        Raises:
            RunStopped: ``on_step`` returned False.
            BundleError: the bundle was built for samplers that remember fewer latents.
            DeviceError: the GPU fails.
        """
        image = self.bundle.manifest.image
        slots = image.batch * (2 if image.guidance else 1)
        if len(texts) != slots:
            raise ValueError(f"{len(texts)} texts for {slots} slots")
        if noise.shape != (run.draws.sum(), image.batch, *image.latent) or noise.dtype != np.float32:
            raise ValueError(f"the noise is {noise.dtype} {noise.shape}")
        if run.rows[0].nbytes > self._names["coefficients"].nbytes:
            raise BundleError(f"the bundle has no room for a sampler of {run.states} latents", "build it again")
        with _translated_errors(self.device):
            started = time.perf_counter()
            self._encode_texts(texts)
            self._wait()
            texts_done = time.perf_counter()
            drawn = iter(noise)
            step_s = []
            commands = self._encode("schedule", "unet", "guide")
            for call in range(run.calls):
                step_started = time.perf_counter()
                self._write("timestep", run.timesteps[call : call + 1])
                self._write_row(run, call, drawn, guidance)
                self._gpu.queue.submit([commands])
                if call + 1 < run.calls:
                    commands = self._encode("schedule", "unet", "guide")
                self._wait()
                step_s.append(time.perf_counter() - step_started)
                if on_step is not None and on_step(call + 1, run.calls) is False:
                    raise RunStopped
            steps_done = time.perf_counter()
            self._write_row(run, run.calls, drawn, guidance)
            self._gpu.queue.submit([self._encode("schedule", "vae", "image") if decode else self._encode("schedule")])
            self._wait()
            self.timing = RunTiming(texts_done - started, tuple(step_s), time.perf_counter() - steps_done)

    @property
    def gpu(self) -> Any:
        """The open `wgpu.GPUDevice`."""
        return self._gpu

    def steps(self, *stages: str) -> list[Step]:
        """Return the dispatches of ``stages`` in order."""
        return [step for stage in stages for step in self._stages[stage]]

    def pixels(self) -> np.ndarray:
        """Return the last batch as uint8 [batch, height, width, 4], RGBA."""
        image = self.bundle.manifest.image
        return self._read("pixels").reshape(image.batch, image.height, image.width, 4)

    def image(self) -> np.ndarray:
        """Return the last batch as float32 [batch, 3, height, width] in 0..1."""
        image = self.bundle.manifest.image
        return self._read("image").view(np.float32).reshape(image.batch, 3, image.height, image.width)

    def latents(self) -> np.ndarray:
        """Return the last batch's final latents, the VAE's input, as float32 [batch, channels, height, width]."""
        image = self.bundle.manifest.image
        return self._read("latents").view(np.float32).reshape(image.batch, *image.latent)

    def _fill_buffers(self, tell: Callable[[str, float], None]) -> list[Any]:
        files = self.bundle.manifest.files
        total = sum(files[b.shard].nbytes for b in self.program.plan.buffers if b.shard)
        loaded = 0
        buffers = []
        for planned in self.program.plan.buffers:
            if planned.usage == "uniform":
                buffers.append(uniform_buffer(self._gpu, planned.words))
                continue
            buffer = storage_buffer(self._gpu, planned.nbytes)
            if planned.words:
                write(self._gpu, buffer, np.array(planned.words, np.uint32))
            position = 0
            for chunk in self.bundle.chunks(planned.shard) if planned.shard else ():
                write(self._gpu, buffer, chunk, position)
                position += len(chunk)
                loaded += len(chunk)
                tell("load weights", loaded / total)
            buffers.append(buffer)
        return buffers

    def _make_stages(self, tell: Callable[[str, float], None]) -> dict[str, list[Step]]:
        plan = self.program.plan
        pipelines = []
        for number, shader in enumerate(plan.shaders):
            tell("compile shaders", number / len(plan.shaders))
            source = self.bundle.read(shader.file).decode("utf-8")
            try:
                pipelines.append(make_pipeline(self._gpu, source, shader.entry))
            except ValueError as error:
                raise BundleError(f"{shader.file}: {error}", "build the bundle again") from error
        groups: dict[tuple[int, tuple[BufferRange, ...]], Any] = {}

        def step(dispatch: PlanDispatch) -> Step:
            key = (dispatch.shader, dispatch.bindings)
            if key not in groups:
                ranges = [(self._buffers[r.buffer], r.offset, r.nbytes) for r in dispatch.bindings]
                groups[key] = bind(self._gpu, pipelines[dispatch.shader], ranges)
            return Step(pipelines[dispatch.shader], groups[key], dispatch.grid)

        return {name: [step(dispatch) for dispatch in dispatches] for name, dispatches in plan.stages.items()}

    def _encode_texts(self, texts: Sequence[Sequence[int]]) -> None:
        """Run the text encoder once per distinct text, and copy its output into the slots with that text."""
        embedding, context = self._names["text_embedding"], self._names["context"]
        for text in dict.fromkeys(map(tuple, texts)):
            self._write("token_ids", np.array(text, np.int32))
            copies = self._gpu.create_command_encoder()
            for slot, wanted in enumerate(texts):
                if tuple(wanted) == text:
                    copies.copy_buffer_to_buffer(
                        self._buffers[embedding.buffer],
                        embedding.offset,
                        self._buffers[context.buffer],
                        context.offset + slot * embedding.nbytes,
                        embedding.nbytes,
                    )
            self._gpu.queue.submit([self._encode("clip"), copies.finish()])

    def _write_row(self, run: SamplerRun, row: int, drawn: Iterator[np.ndarray], guidance: float) -> None:
        if run.draws[row]:
            self._write("state", next(drawn))  # slot 0
        self._write("coefficients", run.rows[row])
        step = np.zeros(4, np.uint32)
        step[0] = run.states
        step[1:2] = np.array([guidance], np.float32).view(np.uint32)
        self._write("step", step)

    def _encode(self, *stages: str) -> Any:
        return encode(self._gpu, self.steps(*stages))

    def _write(self, name: str, data: np.ndarray) -> None:
        place = self._names[name]
        if data.nbytes > place.nbytes:
            raise ValueError(f"{data.nbytes} bytes for {name}, which has {place.nbytes}")
        write(self._gpu, self._buffers[place.buffer], data, place.offset)

    def _read(self, name: str) -> np.ndarray:
        place = self._names[name]
        with _translated_errors(self.device):
            return read(self._gpu, self._buffers[place.buffer], place.nbytes, place.offset)

    def _wait(self) -> None:
        # GPUQueue.on_submitted_work_done_sync raises TypeError in wgpu 0.32.
        self._gpu._poll_wait()


@contextmanager
def _translated_errors(device: Device) -> Iterator[None]:
    """Raise wgpu's errors as DeviceError."""
    import wgpu

    try:
        yield
    except wgpu.GPUOutOfMemoryError as error:
        raise DeviceError(
            f"{device.key} ran out of memory", "close other programs, or build a smaller image"
        ) from error
    except (wgpu.GPUError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DeviceError(
            f"{device.key} failed: {lines[0] if lines else type(error).__name__}",
            "try again, or choose another device: `wgtune devices` lists them",
        ) from error
