"""Backend over a page of a browser: the operations are messages, which the page's script carries out in WebGPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...support.enums import TrialState
from ..device import Device
from ..measure.bench import Backend
from ..measure.case_file import CaseArrays, identify, read_case
from ..measure.job import Measurement, Peaks, Timeouts
from ..measure.peak_programs import (
    ARITHMETIC,
    ARITHMETIC_GROUP_BYTES,
    COPY,
    COPY_GROUP_BYTES,
    LAUNCH_BYTES,
    LAUNCHES,
    SAMPLING,
    find_peaks,
)
from ..measure.phases import JobPhase, Notify, failed, out_of_memory, timed_out
from ..measure.requirements import accept_wgsl, check_buffers
from ..measure.sampling import Sampler
from ..program import AnyProgram, Buffer, Program
from .page_link import BYTES_PER_S, PageFault, PageGone, PageLink, PageTimeout
from .page_registry import RegisteredBrowser

_MAX_COLD_RUNS = 16
_COLD_S = 5e-3
_TICK_S = 100e-6


class BrowserBackend(Backend[Program, None]):
    """One page, and the buffers and the program that its GPU holds.

    ``needs_reset`` is set where the page did not answer in time, or lost its GPU: it must reopen the GPU before it is
    used again.
    """

    def __init__(self, browser: RegisteredBrowser, page: PageLink, timeouts: Timeouts) -> None:
        self.page = page
        self.needs_reset = False
        self._browser = browser
        self._device = browser.device
        self._timeouts = timeouts
        self._case: CaseArrays | None = None
        self._fresh: set[str] = set()
        """Inputs that are on the GPU unchanged."""

    def accept(self, program: AnyProgram) -> Program:
        """As `Backend.accept`."""
        return accept_wgsl(self._device, program)

    def sampler(self) -> PageSampler:
        """As `Backend.sampler`."""
        return PageSampler(self.page, self._device, self._timeouts)

    def load(self, path: Path, program: Program) -> CaseArrays:
        """As `Backend.load`; raises PageGone, PageTimeout and PageFault, too."""
        if self._case is None or self._case.identity != identify(path):
            self._case = read_case(path)
            self._fresh.clear()
            # The page fetches inputs by these names, and drops those of the previous case.
            self._browser.resources = {f"arg{index}": array for index, array in self._case.arguments.items()}
        check_buffers(self._device, program, path, self._case.sizes())
        self._fill(program, self._case)
        return self._case

    def compile(self, program: Program) -> tuple[None, float]:
        """As `Backend.compile`. The page keeps the compiled program."""
        content = {
            "shaders": _shaders(program),
            "dispatches": [
                {
                    "shader": dispatch.shader,
                    "buffers": [_name(buffer) for buffer in dispatch.buffers],
                    "grid": list(dispatch.grid),
                    "uniform": list(dispatch.uniform),
                }
                for dispatch in program.dispatches
            ],
        }
        written = self.page.ask("compile", content, self._timeouts.compile_s)
        self._fresh -= set(written)
        return None, 0.0

    def read_output(self, index: int) -> np.ndarray:
        """As `Backend.read_output`."""
        assert self._case is not None
        expected = self._case.expected[index]
        pieces: list[bytes] = []
        content = {"name": f"arg{index}", "size": expected.nbytes}
        self.page.ask("read", content, self._timeouts.start_s, pieces.append)
        data = b"".join(pieces)
        if len(data) != expected.nbytes:
            raise PageFault("gpu", f"{len(data)} bytes of an output of {expected.nbytes} came back")
        return np.frombuffer(data, expected.dtype).reshape(expected.shape)

    def failure(self, error: Exception, phase: JobPhase) -> Measurement | None:
        """As `Backend.failure`; raises PageGone where the page failed before it ran anything of the program."""
        if isinstance(error, PageTimeout):
            self.needs_reset = True
            return timed_out(self._timeouts, phase)
        if not isinstance(error, PageFault):
            return None
        text = str(error)
        if error.fault == "network" or (error.fault == "device-lost" and phase is JobPhase.LOADING):
            self.needs_reset = True
            raise PageGone(deliberate=False) from None
        if error.fault == "device-lost":
            self.needs_reset = True
            return Measurement(TrialState.DEVICE_LOST, error=f"{text} (while {phase.value})")
        if error.fault == "out-of-memory":
            return out_of_memory(phase, text)
        return failed(JobPhase.COMPILING if error.fault == "shader" else phase, text)

    def precompile(self, program: AnyProgram) -> bool:
        """As `Backend.precompile`: the browser compiles while it does other work."""
        if not isinstance(program, Program):
            return False
        self.page.tell("prepare", {"shaders": _shaders(program)})
        return True

    def measure_peaks(self, notify: Notify) -> Peaks:
        """As `Backend.measure_peaks`; raises PageGone, PageTimeout or PageFault instead of DeviceError."""
        sampler = self.sampler()
        self._fresh.clear()

        def load(sizes: list[int], sources: Sequence[str], groups: int) -> None:
            """Have the page compile ``sources``; each binds all buffers, every second one in reverse order."""
            notify(JobPhase.LOADING)
            names = [f"peak{i}" for i in range(len(sizes))]
            self._make(dict(zip(names, sizes, strict=True)), [])
            notify(JobPhase.COMPILING)
            shaders = [{"entry": "main", "source": source} for source in sources]
            dispatches = [
                {"shader": i, "buffers": names[:: -1 if i % 2 else 1], "grid": [groups, 1, 1], "uniform": []}
                for i in range(len(sources))
            ]
            self.page.ask("compile", {"shaders": shaders, "dispatches": dispatches}, self._timeouts.compile_s)
            notify(JobPhase.RUNNING)

        def best_s(source: str, sizes: list[int], groups: int) -> float:
            load(sizes, [source], groups)
            return min(sampler.sample(None, SAMPLING, sampler.run(None)).samples_s)

        loaded = False

        def launches_s(repeats: int) -> float:
            nonlocal loaded
            if not loaded:
                load([LAUNCH_BYTES] * len(LAUNCHES), LAUNCHES, 1)
                loaded = True
            return sampler.run(None, repeats)

        return find_peaks(
            lambda groups: best_s(ARITHMETIC, [groups * ARITHMETIC_GROUP_BYTES], groups),
            lambda nbytes: best_s(COPY, [nbytes, nbytes], nbytes // COPY_GROUP_BYTES),
            launches_s,
        )

    def _fill(self, program: Program, case: CaseArrays) -> None:
        """Set every buffer as a first run must find it: inputs as given, outputs and scratch poisoned."""
        poisoned = {f"arg{i}": array.nbytes for i, array in case.expected.items() if i not in case.arguments}
        poisoned.update({f"scratch{index}": nbytes for index, nbytes in enumerate(program.scratch)})
        inputs = {f"arg{index}": array.nbytes for index, array in case.arguments.items()}
        self._make(poisoned, list(inputs), {name: size for name, size in inputs.items() if name not in self._fresh})
        self._fresh = set(inputs)

    def _make(self, poisoned: Mapping[str, int], inputs: list[str], fetched: Mapping[str, int] | None = None) -> None:
        """Have the page make the buffers ``poisoned`` and ``inputs``, and fetch ``fetched`` of these. Bytes by name."""
        fetched = fetched or {}
        fill: list[dict[str, Any]] = [{"name": name, "size": size, "url": None} for name, size in poisoned.items()]
        fill += [{"name": name, "size": size, "url": f"data/{self.page.key}/{name}"} for name, size in fetched.items()]
        keep = [name for name in inputs if name not in fetched]
        seconds = self._timeouts.start_s + sum(fetched.values()) / BYTES_PER_S
        self.page.ask("buffers", {"keep": keep, "fill": fill}, seconds)


class PageSampler(Sampler[None]):
    """Runs and times the program that the page compiled last."""

    # Browsers round timestamps to 100 µs, and an answer takes some milliseconds to come, which the wall clock sees.
    pass_s: ClassVar[Mapping[str, float]] = {"timestamp": 10e-3, "wall": 50e-3}

    def __init__(self, page: PageLink, device: Device, timeouts: Timeouts) -> None:
        super().__init__("timestamp" if "timestamp-query" in device.features else "wall")
        self._page = page
        self._timeouts = timeouts

    def run(self, runnable: None, repeat: int = 1) -> float:
        """As `Sampler.run`; a time too short for rounded timestamps is taken from the wall clock."""
        return self._ask(repeat, 1, cold=False)

    def run_cold(self, runnable: None, count: int = 1) -> float:
        """As `Sampler.run_cold`."""
        return self._ask(1, count, cold=True)

    def cold_runs(self, first_s: float) -> int:
        """As `Sampler.cold_runs`: as many as make the rounding of timestamps negligible."""
        if self.kind == "wall":
            return 1
        return max(1, min(_MAX_COLD_RUNS, round(_COLD_S / max(first_s, 1e-9))))

    def _ask(self, repeat: int, count: int, *, cold: bool) -> float:
        self.before_submit()
        content = {"repeat": repeat, "count": count, "cold": cold}
        answer = self._page.ask("run", content, self._timeouts.run_s)
        wall_s = float(answer["wall"])
        self.busy_s += wall_s
        spans = answer["spans"]
        if spans is None or self.kind == "wall":
            return wall_s
        seconds = sum(spans) * 1e-9
        if min(spans) < 0 or seconds > 1.05 * wall_s + 2 * _TICK_S * len(spans):
            self.kind = "wall"
            return wall_s
        return seconds if seconds > 0 else min(wall_s, _TICK_S)


def _shaders(program: Program) -> list[dict[str, str]]:
    return [{"entry": shader.entry, "source": shader.source} for shader in program.shaders]


def _name(buffer: Buffer) -> str:
    return f"{buffer.kind}{buffer.index}"
