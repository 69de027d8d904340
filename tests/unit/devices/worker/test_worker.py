"""The parent's side of a worker, against a child that follows a script instead of running a GPU."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from wgtune.devices.device import Device
from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from wgtune.devices.program import Program, Requirements, Shader
from wgtune.devices.worker import worker as worker_module
from wgtune.devices.worker.worker import Worker
from wgtune.support.child_process import Child, ChildDied, describe_exit
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DeviceError

# The name of a job's shader is what the child does about it; its answers carry the process id as the error text.
SCRIPT = """
import json, os, signal, sys, time

def answer(**message):
    print(json.dumps(message), flush=True)

def result(number, state="ok"):
    answer(id=number, result=dict(state=state, samples_s=[1e-3], timer="wall", compile_s=0, run_s=0, verify_s=0,
                                  max_error=0, error=str(os.getpid())))

signal.signal(signal.SIGINT, signal.SIG_IGN)
mode = os.environ.get("STUB_MODE", "")
json.loads(sys.stdin.readline())
if mode == "refuses to open":
    answer(id=0, refused="the device is no longer there", hint="plug it in")
    sys.exit(1)
if mode == "crashes at start":
    sys.stderr.write("no memory for the driver\\n")
    sys.exit(3)
answer(id=0, ready=True)
jobs = 0
for line in sys.stdin:
    request = json.loads(line)
    number = request["id"]
    jobs += 1
    if "calibrate" in request:
        if mode == "sick":
            os.abort()
        answer(id=number, result=dict(flops_per_s=1e9, bytes_per_s=1e9, launch_s=1e-6))
        continue
    todo = request["measure"]["program"]["shaders"][0]["entry"]
    if todo.startswith("phase "):
        answer(id=number, phase=todo.split()[1])
        time.sleep(600)
    if todo == "slow but alive":
        for _ in range(6):
            answer(id=number, phase="running")
            time.sleep(0.3)
    if todo == "late":
        answer(id=number, phase="running")
        time.sleep(1.2)
        result(number)
        time.sleep(600)
    if todo == "crash":
        answer(id=number, phase="compiling")
        sys.stderr.write("thread panicked: index out of bounds\\n")
        sys.stderr.flush()
        os.abort()
    if todo == "crash unless fresh" and jobs > 1:
        answer(id=number, phase="running")
        os.kill(os.getpid(), signal.SIGSEGV)
    if todo == "die unless fresh" and jobs > 1:
        sys.exit(0)
    if todo == "garbage on the pipe":
        sys.stdout.write("Segmentation fault\\n{}\\n[]\\n{\\"id\\": null}\\n\\x00\\xff half a line\\n")
        sys.stdout.write("[" * 100000 + "\\n" + "9" * 5000000 + "\\n")
        answer(id=number, phase="no such phase")
        answer(id=number, phase=["loading"])
        answer(id=number, result="ok")
        result(number)
        continue
    if todo.startswith("garbage "):
        answer(id=number, result=dict(dict(state="ok", samples_s=[1e-3], timer="wall", compile_s=0, run_s=0,
                                           verify_s=0, max_error=0, error=""), **json.loads(todo[8:])))
        continue
    if todo == "chatter":
        while True:
            answer(id=number - 1, phase="running")
            time.sleep(0.05)
    if todo == "from the future":
        result(number)
        for guess in range(1, 50):
            result(guess, "wrong_result")
            result(number + guess, "wrong_result")
        continue
    if todo in ("device_lost", "run_error", "wrong_result", "build_error"):
        result(number, todo)
        continue
    result(number)
"""
DEVICE = Device("vulkan:stub", "vulkan", "none", "", "stub", "1.0", "cpu", True, {}, (), runtime=Runtime.WGPU, index=0)
LIMITS = Timeouts(start_s=5, compile_s=0.7, run_s=0.7)


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stub_worker_process.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(worker_module, "_MODULE", "stub_worker_process")
    monkeypatch.setattr(worker_module, "_peaks", {})


def job(todo: str) -> MeasureJob:
    program = Program((Shader(todo, "", (1, 1, 1)),), (), (), Requirements(1, (1, 1, 1), 0, 0, 4))
    return MeasureJob(program, Path("none.safetensors"), 0, 0)


def process(measured: Measurement) -> int:
    assert measured.state is TrialState.OK, measured
    return int(measured.error)


@pytest.mark.parametrize(
    ("phase", "state"),
    [("compiling", TrialState.COMPILE_TIMEOUT), ("running", TrialState.RUN_TIMEOUT)],
)
def test_the_phase_under_way_names_the_timeout(phase: str, state: TrialState) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        before = time.monotonic()
        late = worker.measure(job(f"phase {phase}"))
        assert late.state is state and f"{phase} did not end within 0.7 s" in late.error
        assert 0.7 <= time.monotonic() - before < 5
        spent = {"compiling": late.compile_s, "running": late.run_s}
        assert 0.6 < spent.pop(phase) < 5 and list(spent.values()) == [0]
        assert process(worker.measure(job("good"))) != first


@pytest.mark.parametrize("phase", ["loading", "verifying"])
def test_moving_data_has_the_start_limit(phase: str) -> None:
    with Worker(DEVICE, replace(LIMITS, start_s=2)) as worker:
        assert worker.measure(job(f"phase {phase}")).state is TrialState.RUN_ERROR


def test_the_clock_starts_anew_with_each_phase() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        assert worker.measure(job("slow but alive")).state is TrialState.OK


def test_a_killed_childs_late_answer_is_not_the_next_jobs() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        assert worker.measure(job("late")).state is TrialState.RUN_TIMEOUT
        time.sleep(1)  # now the answer would be there
        assert worker.measure(job("wrong_result")).state is TrialState.WRONG_RESULT


def test_answers_from_the_future_are_nobodys() -> None:
    """Answers to requests that were not made yet lie in the pipe when those are made."""
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("from the future")))
        time.sleep(0.3)
        assert [process(worker.measure(job("good"))) for _ in range(3)] == [first] * 3


def test_garbage_beside_an_answer_is_passed_over() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("garbage on the pipe")))
        assert process(worker.measure(job("good"))) == first


@pytest.mark.parametrize(
    "changes",
    [
        '{"state": "splendid"}',
        '{"state": "running"}',
        '{"samples_s": []}',
        '{"samples_s": [NaN]}',
        '{"samples_s": [-1]}',
        '{"samples_s": "fast"}',
        '{"max_error": null}',
        '{"max_error": NaN}',
        '{"run_s": "long"}',
        '{"warmup_s": 7}',
        '{"colour": "blue"}',
    ],
)
def test_an_answer_that_is_no_measurement_is_a_fault_of_the_worker(changes: str) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        wrong = worker.measure(job(f"garbage {changes}"))
        assert wrong.state is TrialState.RUN_ERROR and "garbage" in wrong.error and not wrong.samples_s
        assert worker.consecutive_faults == 1
        assert process(worker.measure(job("good"))) != first


def test_chatter_about_other_jobs_does_not_extend_the_time() -> None:
    with Worker(DEVICE, replace(LIMITS, start_s=1.5)) as worker:
        before = time.monotonic()
        assert worker.measure(job("chatter")).state is TrialState.RUN_ERROR
        assert time.monotonic() - before < 8


def test_a_crash_is_booked_with_signal_phase_and_last_words() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        crash = worker.measure(job("crash"))
        assert crash.state is TrialState.RUN_ERROR
        assert "SIGABRT" in crash.error and "while compiling" in crash.error and "index out of bounds" in crash.error
        assert worker.consecutive_faults == 1
        process(worker.measure(job("good")))
        assert worker.consecutive_faults == 0


@pytest.mark.parametrize("todo", ["crash unless fresh", "die unless fresh"])
def test_a_crash_that_an_earlier_program_left_behind_is_not_booked(todo: str) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        assert process(worker.measure(job(todo))) != first
        assert worker.consecutive_faults == 0


def test_a_child_that_dies_between_jobs_is_replaced() -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        os.kill(first, signal.SIGTERM)
        time.sleep(0.2)
        assert process(worker.measure(job("good"))) != first
        assert worker.consecutive_faults == 0


@pytest.mark.parametrize("state", [TrialState.DEVICE_LOST, TrialState.RUN_ERROR])
def test_after_a_fault_of_the_device_a_fresh_child_goes_on(state: TrialState) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        assert worker.measure(job(state.value)).state is state
        assert worker.consecutive_faults == 1
        assert process(worker.measure(job("good"))) != first


@pytest.mark.parametrize("state", [TrialState.WRONG_RESULT, TrialState.BUILD_ERROR])
def test_candidates_that_are_merely_wrong_are_no_sign_of_a_sick_device(state: TrialState) -> None:
    with Worker(DEVICE, LIMITS, max_consecutive_faults=2) as worker:
        first = process(worker.measure(job("good")))
        for _ in range(5):
            assert worker.measure(job(state.value)).state is state
        assert worker.consecutive_faults == 0
        assert process(worker.measure(job("good"))) == first


def test_a_device_that_fails_at_everything_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MODE", "sick")
    with Worker(DEVICE, LIMITS, max_consecutive_faults=3) as worker:
        for _ in range(3):
            assert worker.measure(job("crash")).state is TrialState.RUN_ERROR
        assert worker.consecutive_faults == 3
        with pytest.raises(DeviceError, match="suspended: 3 programs in a row") as raised:
            worker.measure(job("good"))
        assert raised.value.hint


def test_a_row_of_bad_candidates_does_not_suspend_a_device_that_still_works() -> None:
    with Worker(DEVICE, LIMITS, max_consecutive_faults=2) as worker:
        for _ in range(5):
            assert worker.measure(job("crash")).state is TrialState.RUN_ERROR
        process(worker.measure(job("good")))


def test_a_worker_that_cannot_open_its_device_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_START_PAUSE_S", 0.01)
    monkeypatch.setenv("STUB_MODE", "refuses to open")
    with pytest.raises(DeviceError, match="no longer there") as raised:
        Worker(DEVICE, LIMITS).__enter__()
    assert raised.value.hint == "plug it in"
    monkeypatch.setenv("STUB_MODE", "crashes at start")
    with pytest.raises(DeviceError, match="no memory for the driver"):
        Worker(DEVICE, LIMITS).__enter__()


def test_devices_that_run_no_wgsl_are_refused() -> None:
    with pytest.raises(DeviceError, match="tvm-cuda"):
        Worker(replace(DEVICE, runtime=Runtime.TVM_CUDA))


def test_ctrl_c_during_a_job_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(DEVICE, LIMITS) as worker:
        first = process(worker.measure(job("good")))
        with monkeypatch.context() as patch:
            patch.setattr(Child, "receive", lambda self, deadline: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                worker.measure(job("wrong_result"))
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert process(worker.measure(job("good"))) != first


def test_closing_ends_the_child_and_using_again_starts_another() -> None:
    worker = Worker(DEVICE, LIMITS)
    first = process(worker.measure(job("good")))
    worker.close()
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert process(worker.measure(job("good"))) != first
    worker.close()


def test_peaks_are_measured_once_per_process() -> None:
    with Worker(DEVICE, LIMITS) as one, Worker(DEVICE, LIMITS) as other:
        assert one.calibrate() == Peaks(1e9, 1e9, 1e-6)
        assert other.calibrate() is one.calibrate()


def test_a_child_with_a_flood_of_output_does_not_block() -> None:
    Path(os.environ["PYTHONPATH"], "stub_flood.py").write_text(
        "import sys\nfor i in range(20000): print('driver chatter', i, file=sys.stderr)\n"
        "print('{\"id\": 1}', flush=True)"
    )
    child = Child("stub_flood")
    assert child.receive(time.monotonic() + 20) == {"id": 1}
    with pytest.raises(ChildDied, match="chatter 19999"):
        child.receive(time.monotonic() + 20)
    child.kill()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("returns", "ended with exit status 0"),
        ("refuses", "ended with exit status 1"),
        ("fails", "ended with exit status 1; its last words:\nTraceback"),
    ],
)
def test_a_child_ends_as_it_should_while_its_input_is_still_open(how: str, words: str) -> None:
    Path(os.environ["PYTHONPATH"], "stub_ending.py").write_text(
        """
import sys
from wgtune.support.child_main import serve
from wgtune.support.errors import DeviceError

def main(requests, answer):
    how = requests.get()["how"]
    if how == "refuses":
        raise DeviceError("the device is in use", "")
    return 0 if how == "returns" else 1 // 0

sys.exit(serve(main))
"""
    )
    child = Child("stub_ending")
    child.send({"how": how})
    with pytest.raises(ChildDied) as died:
        while True:
            assert child.receive(time.monotonic() + 20)["refused"] == "the device is in use"
    child.kill()
    assert str(died.value).startswith(words) and "Fatal" not in str(died.value)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_how_a_process_ended_in_words() -> None:
    assert describe_exit(-11) == "was ended by SIGSEGV (signal 11)"
    assert describe_exit(-200) == "was ended by signal 200"
    assert describe_exit(3) == "ended with exit status 3"
    assert describe_exit(None) == "closed its pipes"
