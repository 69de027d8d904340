"""Runs, verifies and times one job in a page: the same steps as `wgtune.devices.webgpu.bench`, by way of messages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...support.enums import TrialState
from ..device import Device
from ..measure.case_file import CaseArrays, CaseError, identify, read_case
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ..measure.peak_programs import ARITHMETIC, ARITHMETIC_GROUP_BYTES, COPY, COPY_GROUP_BYTES, SAMPLING, find_peaks
from ..measure.protocol import JobPhase
from ..measure.sampling import Sampler
from ..measure.verify import believe, judge, out_of_memory, oversized, refusal
from ..program import Buffer, Program
from .page_link import BYTES_PER_S, PageFault, PageGone, PageLink, PageTimeout
from .page_registry import RegisteredBrowser

_TIMEOUT_STATES = {JobPhase.COMPILING: TrialState.COMPILE_TIMEOUT, JobPhase.RUNNING: TrialState.RUN_TIMEOUT}
_MAX_COLD_RUNS = 16
_COLD_S = 5e-3
_TICK_S = 100e-6


class BrowserBench:
    """What one page does, and what its GPU holds.

    ``hangs`` is set where the page did not answer in time, or lost its GPU: it must open the GPU anew before it is of
    use. ``phase`` is what it does now, or did last.
    """

    def __init__(self, browser: RegisteredBrowser, page: PageLink, timeouts: Timeouts) -> None:
        self.page = page
        self.hangs = False
        self.phase = JobPhase.LOADING
        self._browser = browser
        self._device = browser.device
        self._timeouts = timeouts
        self._case: CaseArrays | None = None
        self._identity: tuple[Path, int, int] | None = None
        self._fresh: set[str] = set()
        """Inputs that are on the GPU as they were given."""

    def measure(self, job: MeasureJob) -> Measurement:
        """Runs, verifies and times ``job``, while the browser compiles what is upcoming.

        Raises PageGone where the page goes away, and CaseError for a case that is of no use.
        """
        program = job.program
        assert isinstance(program, Program)
        unfit = refusal(self._device, program)
        if unfit:
            return Measurement(TrialState.BUILD_ERROR, error=unfit)
        spent = dict.fromkeys(JobPhase, 0.0)
        self.phase, since = JobPhase.LOADING, time.perf_counter()

        def enter(phase: JobPhase) -> None:
            nonlocal since
            now = time.perf_counter()
            spent[self.phase] += now - since
            self.phase, since = phase, now

        sampler = _PageSampler(self.page, self._device, self._timeouts)
        try:
            case = self._load(job, program)
            unfit = oversized(self._device, program, case.sizes())
            if unfit:
                return Measurement(TrialState.BUILD_ERROR, error=unfit)
            self._fill(program, case)
            enter(JobPhase.COMPILING)
            self._compile(program)
            if isinstance(job.upcoming, Program):
                self.page.tell("prepare", {"shaders": _shaders(job.upcoming)})
            enter(JobPhase.RUNNING)
            first_s = sampler.run(None)
            enter(JobPhase.VERIFYING)
            result = judge(job, case.expected, lambda index: self._output(index, case.expected[index]))
            if result.state is TrialState.OK:
                enter(JobPhase.RUNNING)
                taken = sampler.sample(None, job.sampling, first_s)
                result = replace(result, samples_s=taken.samples_s, warmup_s=taken.warmup_s, timer=sampler.kind)
                result = believe(result, job.floor_s)
        except PageTimeout:
            self.hangs = True
            state = _TIMEOUT_STATES.get(self.phase, TrialState.RUN_ERROR)
            result = Measurement(state, error=f"{self.phase.value} did not end within {self._limit_s():g} s")
        except PageFault as fault:
            if fault.fault == "network" or (fault.fault == "device-lost" and self.phase is JobPhase.LOADING):
                self.hangs = True
                raise PageGone(deliberate=False) from None  # nothing of this program has run yet
            result = self._failure(fault)
        enter(self.phase)
        return replace(
            result,
            compile_s=spent[JobPhase.COMPILING],
            run_s=sampler.busy_s,
            verify_s=spent[JobPhase.LOADING] + spent[JobPhase.VERIFYING],
        )

    def measure_peaks(self) -> Peaks:
        """What the GPU can do at best. Raises PageGone, PageTimeout or PageFault."""
        sampler = _PageSampler(self.page, self._device, self._timeouts)
        self._fresh.clear()

        def best_s(source: str, sizes: list[int], groups: int) -> float:
            self.phase = JobPhase.LOADING
            names = [f"peak{i}" for i in range(len(sizes))]
            self._make(dict(zip(names, sizes, strict=True)), [])
            self.phase = JobPhase.COMPILING
            dispatch = {"shader": 0, "buffers": names, "grid": [groups, 1, 1], "uniform": []}
            shaders = [{"entry": "main", "source": source}]
            self.page.ask("compile", {"shaders": shaders, "dispatches": [dispatch]}, self._timeouts.compile_s)
            self.phase = JobPhase.RUNNING
            return min(sampler.sample(None, SAMPLING, sampler.run(None)).samples_s)

        return find_peaks(
            lambda groups: best_s(ARITHMETIC, [groups * ARITHMETIC_GROUP_BYTES], groups),
            lambda nbytes: best_s(COPY, [nbytes, nbytes], nbytes // COPY_GROUP_BYTES),
        )

    def _load(self, job: MeasureJob, program: Program) -> CaseArrays:
        identity = identify(job.case)
        if self._case is None or self._identity != identity:
            self._case, self._identity = read_case(job.case), identity
            self._fresh.clear()
            # Names are new with each case: a page must not take one case's inputs for another's.
            self._browser.resources = {f"arg{index}": array for index, array in self._case.arguments.items()}
        sizes = self._case.sizes()
        for dispatch in program.dispatches:
            for buffer in dispatch.buffers:
                if buffer.kind == "arg" and buffer.index not in sizes:
                    raise CaseError(f"the case {job.case} lacks parameter {buffer.index} of the program")
        return self._case

    def _fill(self, program: Program, case: CaseArrays) -> None:
        """Puts every buffer as a first run must find it: inputs as given, outputs and scratch poisoned."""
        poisoned = {f"arg{index}": array.nbytes for index, array in case.expected.items()}
        poisoned = {name: size for name, size in poisoned.items() if int(name[3:]) not in case.arguments}
        poisoned.update({f"scratch{index}": nbytes for index, nbytes in enumerate(program.scratch)})
        inputs = {f"arg{index}": array.nbytes for index, array in case.arguments.items()}
        self._make(poisoned, list(inputs), {name: size for name, size in inputs.items() if name not in self._fresh})
        self._fresh = set(inputs)

    def _make(self, poisoned: Mapping[str, int], inputs: list[str], fetched: Mapping[str, int] | None = None) -> None:
        fetched = fetched or {}
        fill: list[dict[str, Any]] = [{"name": name, "size": size, "url": None} for name, size in poisoned.items()]
        fill += [{"name": name, "size": size, "url": f"data/{self.page.key}/{name}"} for name, size in fetched.items()]
        keep = [name for name in inputs if name not in fetched]
        seconds = self._timeouts.start_s + sum(fetched.values()) / BYTES_PER_S
        self.page.ask("buffers", {"keep": keep, "fill": fill}, seconds)

    def _compile(self, program: Program) -> None:
        written = self.page.ask(
            "compile",
            {
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
            },
            self._timeouts.compile_s,
        )
        self._fresh -= set(written)

    def _output(self, index: int, expected: np.ndarray) -> np.ndarray:
        pieces: list[bytes] = []
        content = {"name": f"arg{index}", "size": expected.nbytes}
        self.page.ask("read", content, self._timeouts.start_s, pieces.append)
        data = b"".join(pieces)
        if len(data) != expected.nbytes:
            raise PageFault("gpu", f"{len(data)} bytes of an output of {expected.nbytes} came back")
        return np.frombuffer(data, expected.dtype).reshape(expected.shape)

    def _failure(self, fault: PageFault) -> Measurement:
        """The state that a fault amounts to in this phase."""
        text = str(fault)
        if fault.fault == "device-lost":
            self.hangs = True
            return Measurement(TrialState.DEVICE_LOST, error=f"{text} (while {self.phase.value})")
        if fault.fault == "out-of-memory":
            return out_of_memory(self.phase, text)
        early = fault.fault == "shader" or self.phase in (JobPhase.LOADING, JobPhase.COMPILING)
        return Measurement(TrialState.BUILD_ERROR if early else TrialState.RUN_ERROR, error=text)

    def _limit_s(self) -> float:
        limits = {JobPhase.COMPILING: self._timeouts.compile_s, JobPhase.RUNNING: self._timeouts.run_s}
        return limits.get(self.phase, self._timeouts.start_s)


class _PageSampler(Sampler[None]):
    """Samples of the program that the page has compiled last."""

    # Browsers round timestamps to 100 µs, and an answer takes some milliseconds to come, which the wall clock sees.
    pass_s: ClassVar[Mapping[str, float]] = {"timestamp": 10e-3, "wall": 50e-3}

    def __init__(self, page: PageLink, device: Device, timeouts: Timeouts) -> None:
        super().__init__("timestamp" if "timestamp-query" in device.features else "wall")
        self._page = page
        self._timeouts = timeouts

    def run(self, steps: None, repeat: int = 1) -> float:
        """Runs the program; a time too short for rounded timestamps is taken from the wall clock."""
        return self._ask(repeat, 1, cold=False)

    def run_cold(self, steps: None, count: int = 1) -> float:
        """Runs the program behind emptied caches."""
        return self._ask(1, count, cold=True)

    def cold_runs(self, first_s: float) -> int:
        """So many that rounding does not matter."""
        if self.kind == "wall":
            return 1
        return max(1, min(_MAX_COLD_RUNS, round(_COLD_S / max(first_s, 1e-9))))

    def _ask(self, repeat: int, count: int, *, cold: bool) -> float:
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
