"""A worker's second child, which compiles what comes next: who does what, and whose fault is whose.

The children follow a script instead of running a GPU: the name of a program's shader says what becomes of it, in words
that are joined by ";". Each child has a file with its process id in a folder, so that it knows whether it is alone.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from wgtune.devices.device import Device
from wgtune.devices.measure.job import MeasureJob, Measurement, Timeouts
from wgtune.devices.measure.precompile import Compiler
from wgtune.devices.measure.protocol import job_from_json, job_to_json
from wgtune.devices.program import Program, Requirements, Shader
from wgtune.devices.worker import worker as worker_module
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import Runtime, TrialState

SCRIPT = """
import json, os, sys, time
from pathlib import Path

folder = Path(os.environ["STUB_FOLDER"])

def answer(**message):
    print(json.dumps(message), flush=True)

def alone():
    others = [int(file.name) for file in folder.glob("[0-9]*") if int(file.name) != os.getpid()]
    return not any(Path(f"/proc/{pid}").exists() for pid in others)

def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)

(folder / str(os.getpid())).touch()
json.loads(sys.stdin.readline())
if "one process" in os.environ.get("STUB_MODE", "") and not alone():
    answer(id=0, refused="the device is in use", hint="")
    sys.exit(1)
answer(id=0, ready=True)
compiled = None
for line in sys.stdin:
    request = json.loads(line)
    number = request["id"]
    todo = (request["prepare"] if "prepare" in request else request["measure"]["program"])["shaders"][0]["entry"]
    words = todo.split(";")
    answer(id=number, phase="compiling")
    if "prepare" in request:
        with (folder / "log").open("a") as log:
            log.write(f"{todo}\\n")
        for word in words:
            if word == "aborts ahead":
                os.abort()
            if word == "compiles for ever":
                time.sleep(600)
            if word.startswith("says when compiled"):
                (folder / "compiled").touch()
        compiled = todo
        answer(id=number, result=dict(prepared="does not compile" not in words))
        continue
    ahead, compiled = compiled == todo, None
    state, error, max_error = "ok", f"{os.getpid()} {'ahead' if ahead else 'now'}", 0
    answer(id=number, phase="running")
    for word in words:
        if word == "waits until the next is compiled":
            wait_for("compiled")
        if word == "waits for ever":
            time.sleep(600)
        if word == "crashes" or word == "crashes unless alone" and not alone():
            os.abort()
        if word == "runs out of memory unless alone" and not alone():
            state, error = "run_error", "out of memory while loading: 3 GiB"
        if word == "loses the device":
            state, error = "device_lost", "the device is gone"
        if word == "does not compile":
            state, error = "build_error", "line 3: unknown type"
    answer(id=number, result=dict(state=state, samples_s=[1e-3], timer="wall", compile_s=0, run_s=0, verify_s=0,
                                  max_error=max_error, error=error))
"""
DEVICE = Device("vulkan:stub", "vulkan", "none", "", "stub", "1.0", "cpu", True, {}, (), runtime=Runtime.WGPU, index=0)
LIMITS = Timeouts(start_s=10, compile_s=1.0, run_s=5.0)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "stub_pair_process.py").write_text(SCRIPT)
    (tmp_path / "stub").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STUB_FOLDER", str(tmp_path / "stub"))
    monkeypatch.setattr(worker_module, "_MODULE", "stub_pair_process")
    return tmp_path / "stub"


def program(todo: str) -> Program:
    return Program((Shader(todo, "", (1, 1, 1)),), (), (), Requirements(1, (1, 1, 1), 0, 0, 4))


def measure(worker: Worker, todo: str, upcoming: str | None = None, case: str = "case") -> Measurement:
    job = MeasureJob(program(todo), Path(case), 0, 0, upcoming=program(upcoming) if upcoming else None)
    return worker.measure(job)


def process_and_how(measured: Measurement) -> tuple[int, str]:
    """Which child measured it, and whether it was compiled ahead or now."""
    assert measured.state is TrialState.OK, measured
    pid, how = measured.error.split()
    return int(pid), how


def prepared(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


def started(folder: Path) -> int:
    return len(list(folder.glob("[0-9]*")))


def test_the_next_program_is_compiled_while_one_is_measured_and_the_children_take_turns(folder: Path) -> None:
    """The first program ends when the second is compiled: it never would if that were not done beside it."""
    with Worker(DEVICE, LIMITS) as worker:
        one = process_and_how(measure(worker, "waits until the next is compiled", "a;says when compiled"))
        two = process_and_how(measure(worker, "a;says when compiled", "b"))
        three = process_and_how(measure(worker, "b", "c"))
        four = process_and_how(measure(worker, "c"))
        assert [how for _, how in (one, two, three, four)] == ["now", "ahead", "ahead", "ahead"]
        assert one[0] == three[0] != two[0] == four[0] == worker.pid
        assert worker.consecutive_faults == 0 and started(folder) == 2
    for pid, _ in (one, two):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_comes_between_is_measured_by_the_child_that_compiles_nothing(folder: Path) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        one = process_and_how(measure(worker, "a", "b"))
        check = process_and_how(measure(worker, "a baseline"))
        two = process_and_how(measure(worker, "b"))
        assert check == (one[0], "now") and two[1] == "ahead" and two[0] != one[0]
        assert prepared(folder) == ["b"]


def test_another_program_than_announced_is_measured_all_the_same() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        measure(worker, "a", "b")
        assert process_and_how(measure(worker, "c", "d"))[1] == "now"
        assert process_and_how(measure(worker, "d"))[1] == "ahead"


def test_without_an_upcoming_program_there_is_one_child(folder: Path) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        for todo in ("a", "b", "c"):
            measure(worker, todo)
    assert started(folder) == 1


def test_a_crash_ahead_is_not_booked_where_it_does_not_come_again() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        assert process_and_how(measure(worker, "a", "aborts ahead"))[1] == "now"
        assert process_and_how(measure(worker, "aborts ahead", "b"))[1] == "now"
        assert process_and_how(measure(worker, "b"))[1] == "ahead"
        assert worker.consecutive_faults == 0


def test_a_refused_program_is_refused_where_it_is_measured() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        process_and_how(measure(worker, "a", "does not compile"))
        assert measure(worker, "does not compile", "b").state is TrialState.BUILD_ERROR
        assert process_and_how(measure(worker, "b"))[1] == "ahead"
        assert worker.consecutive_faults == 0


def test_compiling_for_ever_is_booked_once_and_holds_nobody_up_longer_than_its_limit(folder: Path) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        process_and_how(measure(worker, "a", "compiles for ever"))
        before = time.monotonic()
        late = measure(worker, "compiles for ever", "b")
        assert late.state is TrialState.COMPILE_TIMEOUT and "compiling did not end within 1 s" in late.error
        assert LIMITS.compile_s <= time.monotonic() - before < 2 * LIMITS.compile_s + 2
        assert late.compile_s >= LIMITS.compile_s and worker.consecutive_faults == 1
        assert prepared(folder) == ["compiles for ever"], "the device was not given more to do"
        process_and_how(measure(worker, "b"))
        assert worker.consecutive_faults == 0


@pytest.mark.parametrize("fault", ["crashes", "loses the device"])
def test_a_fault_beside_the_other_child_counts_when_it_comes_again_alone(folder: Path, fault: str) -> None:
    expected = TrialState.RUN_ERROR if fault == "crashes" else TrialState.DEVICE_LOST
    with Worker(DEVICE, LIMITS) as worker:
        process_and_how(measure(worker, "a", fault))
        assert measure(worker, fault, "b").state is expected
        assert worker.consecutive_faults == 1 and worker.pid is None
        assert started(folder) == 3, "two children, and one that was alone with the program"
        process_and_how(measure(worker, "b"))


def test_a_fault_that_only_company_brings_about_is_nobodys() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        process_and_how(measure(worker, "a", "b"))
        assert process_and_how(measure(worker, "crashes unless alone", "c"))[1] == "now"
        assert worker.consecutive_faults == 0
        process_and_how(measure(worker, "c", "d"))
        assert process_and_how(measure(worker, "d"))[1] == "ahead", "after that they take turns again"


def test_a_program_that_hangs_beside_the_other_child_does_so_by_itself(folder: Path) -> None:
    with Worker(DEVICE, replace(LIMITS, run_s=0.5)) as worker:
        hung = measure(worker, "waits for ever", "b")
        assert hung.state is TrialState.RUN_TIMEOUT and worker.consecutive_faults == 1 and worker.pid is None
        assert started(folder) <= 2
        process_and_how(measure(worker, "b"))


def test_a_case_too_large_for_two_children_is_measured_by_one(folder: Path) -> None:
    """And the next case is tried with two again."""
    todo = "runs out of memory unless alone"
    with Worker(DEVICE, LIMITS) as worker:
        process_and_how(measure(worker, "waits until the next is compiled", f"{todo};says when compiled", case="large"))
        process_and_how(measure(worker, f"{todo};says when compiled", f"{todo};2", case="large"))
        assert started(folder) == 3 and worker.consecutive_faults == 0
        for number in (2, 3, 4):
            process_and_how(measure(worker, f"{todo};{number}", f"{todo};{number + 1}", case="large"))
        assert started(folder) == 3 and worker.consecutive_faults == 0
        process_and_how(measure(worker, "a", "b", case="small"))
        assert process_and_how(measure(worker, "b", case="small"))[1] == "ahead"


def test_a_device_that_only_one_process_may_open_is_measured_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_MODE", "one process")
    with Worker(DEVICE, LIMITS) as worker:
        ends = [process_and_how(measure(worker, todo, upcoming)) for todo, upcoming in zip("abcd", "bcde", strict=True)]
        assert set(ends) == {(worker.pid, "now")} and started(folder) == 2


def test_a_compiling_child_that_is_killed_is_replaced(folder: Path) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        measure(worker, "a", "b")
        measure(worker, "b", "c")
        (other,) = {int(file.name) for file in folder.glob("[0-9]*")} - {worker.pid}
        os.kill(other, signal.SIGKILL)
        time.sleep(0.3)
        assert process_and_how(measure(worker, "c", "d"))[1] == "now"
        assert process_and_how(measure(worker, "d"))[1] == "ahead"


def test_closing_ends_a_child_in_the_middle_of_compiling(folder: Path) -> None:
    worker = Worker(DEVICE, LIMITS)
    measure(worker, "a", "compiles for ever")
    worker.close()
    for file in folder.glob("[0-9]*"):
        assert not Path(f"/proc/{file.name}").exists()


def test_jobs_carry_the_upcoming_program_over_the_wire() -> None:
    job = MeasureJob(program("a"), Path("/case"), 0, 0, upcoming=program("b"))
    assert job_from_json(job_to_json(job)) == job
    assert job_from_json(job_to_json(replace(job, upcoming=None))).upcoming is None


def test_what_was_compiled_ahead_is_used_once_and_only_for_the_same_program() -> None:
    made: list[str] = []

    def compiled(one: Program) -> str:
        name = one.shaders[0].entry
        made.append(name)
        if name == "bad":
            raise ValueError("bad")
        return name

    compiler = Compiler(compiled)
    assert compiler.prepare(program("a")) and made == ["a"]
    result, seconds = compiler.take(program("a"))
    assert result == "a" and seconds > 0 and made == ["a"]
    assert compiler.take(program("a")) == ("a", 0.0) and made == ["a", "a"]
    compiler.prepare(program("a"))
    assert compiler.take(program("b")) == ("b", 0.0)
    assert not compiler.prepare(program("bad"))
    with pytest.raises(ValueError, match="bad"):
        compiler.take(program("bad"))
