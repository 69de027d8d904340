"""The order of a measurement and how it ends, over a backend without a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from wgtune.devices.measure.bench import Backend, measure
from wgtune.devices.measure.case_file import CaseArrays, CaseError
from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks, Sampling
from wgtune.devices.measure.phases import JobPhase, Notify, PhaseClock, failed, timed_out
from wgtune.devices.measure.requirements import UnsupportedProgram
from wgtune.devices.measure.sampling import Sampler
from wgtune.devices.program import AnyProgram, Program, Requirements, Shader
from wgtune.support.enums import TrialState

LOADING, COMPILING, RUNNING, VERIFYING = JobPhase
SAMPLING = Sampling(warmup=1, min_samples=5, min_seconds=0, max_samples=5, give_up_s=None)


class ScriptedSampler(Sampler[str]):
    pass_s: ClassVar[Mapping[str, float]] = {"wall": 1e-4}

    def __init__(self, calls: list[str], run_s: float) -> None:
        super().__init__("wall")
        self._calls = calls
        self._run_s = run_s

    def run(self, runnable: str, repeat: int = 1) -> float:
        self.before_submit()
        self._calls.append(f"run {runnable}")
        self.busy_s += self._run_s
        return self._run_s

    def run_cold(self, runnable: str, count: int = 1) -> float:
        self._calls.append("cold")
        return self.run(runnable) * count


@dataclass
class ScriptedBackend(Backend[Program, str]):
    """Notes what is asked of it, and raises ``errors`` by the name of the operation."""

    errors: dict[str, Exception] = field(default_factory=dict)
    output: float = 2.0
    run_s: float = 1e-3
    calls: list[str] = field(default_factory=list)
    lost: str = ""

    def _do(self, operation: str) -> None:
        self.calls.append(operation)
        if operation in self.errors:
            raise self.errors[operation]

    def accept(self, program: AnyProgram) -> Program:
        self._do("accept")
        assert isinstance(program, Program)
        return program

    def sampler(self) -> ScriptedSampler:
        return ScriptedSampler(self.calls, self.run_s)

    def load(self, path: Path, program: Program) -> CaseArrays:
        self._do("load")
        return CaseArrays((path, 0, 0), {0: np.ones(4, np.float32)}, {1: np.full(4, 2.0, np.float32)})

    def compile(self, program: Program) -> tuple[str, float]:
        self._do("compile")
        return program.shaders[0].entry, 5.0

    def read_output(self, index: int) -> np.ndarray:
        self._do(f"read {index}")
        return np.full(4, self.output, np.float32)

    def failure(self, error: Exception, phase: JobPhase) -> Measurement | None:
        return failed(phase, str(error)) if isinstance(error, ValueError) else None

    def precompile(self, program: AnyProgram) -> bool:
        assert isinstance(program, Program)
        self._do(f"precompile {program.shaders[0].entry}")
        return True

    def measure_peaks(self, notify: Notify) -> Peaks:
        return Peaks(1.0, 1.0)

    def end_job(self) -> None:
        self.calls.append("end")

    @property
    def lost_message(self) -> str:
        return self.lost


def program(name: str) -> Program:
    return Program((Shader(name, "", (1, 1, 1)),), (), (), Requirements(1, (1, 1, 1), 0, 0, 4))


JOB = MeasureJob(program("main"), Path("case"), rtol=0, atol=0, sampling=SAMPLING)


def phases_of(backend: ScriptedBackend, job: MeasureJob = JOB) -> tuple[Measurement, list[JobPhase]]:
    phases: list[JobPhase] = []
    return measure(job, backend, phases.append), phases


def test_a_good_program_passes_through_every_phase_in_order() -> None:
    backend = ScriptedBackend()
    result, phases = phases_of(backend, replace(JOB, upcoming=program("next")))
    first = ["accept", "load", "compile", "precompile next", "run main", "read 1"]
    assert backend.calls == [*first, *["run main"] * 6, "end"], "verified before a warm-up and five samples"
    assert phases[:5] == [LOADING, COMPILING, RUNNING, RUNNING, VERIFYING]
    assert phases[5:] == [RUNNING] * 7, "announced once, and before each submission"
    assert result.state is TrialState.OK and result.max_error == 0 and result.error == ""
    assert result.samples_s == (1e-3,) * 5 and result.warmup_s == (1e-3,) * 2 and result.timer == "wall"
    assert 5.0 < result.compile_s < 5.1, "with the seconds of compiling before"
    assert result.run_s == pytest.approx(7e-3) and 0 < result.verify_s < 0.1


def test_caches_are_emptied_where_the_job_asks_for_it() -> None:
    backend = ScriptedBackend()
    cold = replace(SAMPLING, cache=type(SAMPLING.cache)("cold"))
    assert phases_of(backend, replace(JOB, sampling=cold))[0].state is TrialState.OK
    assert backend.calls.count("cold") == 6, "the verified run is the first after loading, cold or not"


def test_a_wrong_result_is_not_timed() -> None:
    backend = ScriptedBackend(output=math.nan)
    result, phases = phases_of(backend)
    assert result.state is TrialState.WRONG_RESULT and "4 are NaN" in result.error and not result.samples_s
    assert phases == [LOADING, COMPILING, RUNNING, RUNNING, VERIFYING] and backend.calls[-1] == "end"
    assert result.compile_s > 5 and result.run_s > 0 and result.verify_s > 0


def test_a_time_below_the_floor_is_kept_and_called_implausible() -> None:
    result, _ = phases_of(ScriptedBackend(), replace(JOB, floor_s=2e-3))
    assert result.state is TrialState.IMPLAUSIBLE and len(result.samples_s) == 5 and "0.002 s" in result.error


def test_an_unsupported_program_costs_nothing() -> None:
    backend = ScriptedBackend({"accept": UnsupportedProgram("too many threads")})
    assert phases_of(backend) == (Measurement(TrialState.BUILD_ERROR, error="too many threads"), [])
    assert backend.calls == ["accept"]
    backend = ScriptedBackend({"load": UnsupportedProgram("too large")})
    assert phases_of(backend) == (Measurement(TrialState.BUILD_ERROR, error="too large"), [LOADING])
    assert backend.calls == ["accept", "load", "end"]


@pytest.mark.parametrize(
    ("operation", "state", "phase"),
    [
        ("load", TrialState.BUILD_ERROR, LOADING),
        ("compile", TrialState.BUILD_ERROR, COMPILING),
        ("read 1", TrialState.RUN_ERROR, VERIFYING),
    ],
)
def test_the_phase_of_an_error_decides_the_state(operation: str, state: TrialState, phase: JobPhase) -> None:
    backend = ScriptedBackend({operation: ValueError("driver says no")})
    result, phases = phases_of(backend)
    assert result.state is state and result.error == "driver says no" and phases[-1] is phase
    assert backend.calls[-2:] == [operation, "end"]
    assert result.verify_s > 0


@pytest.mark.parametrize("error", [CaseError("no such file"), KeyError("a fault of wgtune's own")])
def test_what_is_not_the_programs_fault_is_raised(error: Exception) -> None:
    backend = ScriptedBackend({"load": error})
    with pytest.raises(type(error)):
        measure(JOB, backend, lambda phase: None)
    assert backend.calls[-1] == "end"


def test_a_device_that_was_lost_unnoticed_is_reported() -> None:
    result, _ = phases_of(ScriptedBackend(lost="the driver reset the GPU"))
    assert result.state is TrialState.DEVICE_LOST and result.error == "the driver reset the GPU" and result.run_s > 0


def test_the_clock_counts_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 7.0, 7.0, 7.0])
    monkeypatch.setattr("wgtune.devices.measure.phases.time.perf_counter", lambda: next(now))
    clock = PhaseClock()
    assert not clock.begun
    clock.enter(COMPILING)
    clock.enter(VERIFYING)
    assert clock.begun and clock.phase is VERIFYING
    assert clock.seconds(LOADING, VERIFYING) == 1 + 4
    assert clock.seconds(COMPILING) == 2 and clock.seconds(RUNNING) == 0


def test_a_time_limit_names_the_phase() -> None:
    from wgtune.devices.measure.job import Timeouts

    timeouts = Timeouts(start_s=60, compile_s=30, run_s=20)
    ends = {phase: timed_out(timeouts, phase) for phase in JobPhase}
    assert [end.state for end in ends.values()] == [
        TrialState.RUN_ERROR, TrialState.COMPILE_TIMEOUT, TrialState.RUN_TIMEOUT, TrialState.RUN_ERROR,
    ]  # fmt: skip
    assert ends[RUNNING].error == "running did not end within 20 s" and "60 s" in ends[LOADING].error
