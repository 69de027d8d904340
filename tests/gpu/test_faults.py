"""Programs that misbehave: each ends in its state, is booked on itself alone, and the run goes on."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest
import wgpu
from folders import HELPERS
from sample_programs import BROKEN, CRASHING, DOUBLING, ENDLESS, NANS, SLOW_TO_COMPILE, TRIPLING, elementwise, job

from wgtune.devices.device import Device
from wgtune.devices.measure.bench import measure
from wgtune.devices.measure.job import Timeouts
from wgtune.devices.measure.phases import JobPhase
from wgtune.devices.webgpu.backend import WebGpuBackend
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import TrialState
from wgtune.support.errors import WgtuneError

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux")
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")  # in Debian's chromium package


def test_five_faults_between_good_programs(device: Device, doubling: Path) -> None:
    faulty = {
        TrialState.RUN_TIMEOUT: ENDLESS,
        TrialState.WRONG_RESULT: TRIPLING,
        TrialState.BUILD_ERROR: BROKEN,
        TrialState.RUN_ERROR: CRASHING,
    }
    with Worker(device, Timeouts(run_s=2)) as worker:
        for state, program in [*faulty.items(), (TrialState.WRONG_RESULT, NANS)]:
            result = worker.measure(job(program, doubling))
            assert result.state is state, result.error
            assert result.error and not result.samples_s
            good = worker.measure(job(DOUBLING, doubling))
            assert good.state is TrialState.OK, good.error
            assert good.max_error == 0 and good.samples_s
            assert worker.consecutive_faults == 0


def test_five_faults_with_the_next_program_compiling_beside_each(device: Device, doubling: Path) -> None:
    """Good programs and bad ones in turn, each compiled by one process while another is at the one before."""
    order = [
        DOUBLING,
        CRASHING,
        DOUBLING,
        TRIPLING,
        BROKEN,
        DOUBLING,
        ENDLESS,
        DOUBLING,
        SLOW_TO_COMPILE,
        NANS,
        DOUBLING,
    ]
    wanted = {
        DOUBLING: TrialState.OK,
        CRASHING: TrialState.RUN_ERROR,
        BROKEN: TrialState.BUILD_ERROR,
        ENDLESS: TrialState.RUN_TIMEOUT,
        SLOW_TO_COMPILE: TrialState.COMPILE_TIMEOUT,
    }
    with Worker(device, Timeouts(run_s=2, compile_s=2)) as worker:
        for program, upcoming in zip_longest(order, order[1:]):
            result = worker.measure(job(program, doubling, upcoming=upcoming))
            assert result.state is wanted.get(program, TrialState.WRONG_RESULT), result.error
            assert worker.consecutive_faults == (1 if result.state.crash else 0)


def test_errors_say_what_happened(device: Device, doubling: Path) -> None:
    with Worker(device, Timeouts(run_s=1)) as worker:
        assert "oops" in worker.measure(job(BROKEN, doubling)).error
        crash = worker.measure(job(CRASHING, doubling))
        assert "SIGSEGV" in crash.error and "compiling" in crash.error
        assert "running did not end within 1 s" in worker.measure(job(ENDLESS, doubling)).error
        assert worker.consecutive_faults == 2
        wrong = worker.measure(job(TRIPLING, doubling))
        assert "1024 of 1024" in wrong.error and wrong.max_error == pytest.approx(1)
        nans = worker.measure(job(NANS, doubling))
        assert nans.max_error is not None and math.isnan(nans.max_error)


def test_compiling_has_a_limit_of_its_own(device: Device, doubling: Path) -> None:
    with Worker(device, Timeouts(compile_s=2, run_s=60)) as worker:
        result = worker.measure(job(SLOW_TO_COMPILE, doubling))
        assert result.state is TrialState.COMPILE_TIMEOUT, result.error
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK


@pytest.mark.skipif(sys.platform != "linux", reason="SwiftShader's Vulkan driver is taken from Debian's chromium")
def test_an_endless_loop_on_a_driver_that_really_loops(doubling: Path, tmp_path: Path) -> None:
    assert SWIFTSHADER.exists(), "install Debian's chromium package: it brings SwiftShader's Vulkan driver"
    # The Vulkan loader reads its drivers once per process, so this one runs in its own.
    program = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from pathlib import Path
from sample_programs import DOUBLING, elementwise, job
from wgtune.devices.discovery.discovery import discover, select
from wgtune.devices.measure.job import Timeouts
from wgtune.devices.worker.worker import Worker
endless = elementwise("loop {{ y[id.x] = y[id.x] * 0.5 + 1.0; if (y[id.x] < -1.0) {{ break; }} }}")
case = Path({str(doubling)!r})
with Worker(select("vulkan:swiftshader", discover().devices), Timeouts(run_s=2)) as worker:
    for program in (DOUBLING, endless, DOUBLING):
        print(worker.measure(job(program, case)).state.value)
"""
    environment = {**os.environ, "VK_ICD_FILENAMES": str(SWIFTSHADER), "VK_DRIVER_FILES": str(SWIFTSHADER)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["ok", "run_timeout", "ok"], done.stderr


@linux
def test_memory_that_is_not_there_is_booked_and_the_next_job_runs(device: Device, doubling: Path) -> None:
    """The process may have a gigabyte more than it has now; the program wants eight of scratch."""
    with Worker(device, Timeouts()) as worker:
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
        assert worker.pid is not None
        limit = _virtual_memory(worker.pid) + (1 << 30)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
        piece = min(device.limits["maxStorageBufferBindingSize"], device.limits["maxBufferSize"], 1 << 30)
        greedy = replace(DOUBLING, scratch=(piece,) * ((8 << 30) // piece))
        result = worker.measure(job(greedy, doubling))
        assert result.state in (TrialState.RUN_ERROR, TrialState.DEVICE_LOST), result.error
        assert result.error and not result.samples_s and worker.consecutive_faults == 1
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK


@linux
def test_a_full_disk_under_the_drivers_cache_stops_nothing(
    device: Device, doubling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may write no file at all is what a full disk looks like from inside."""
    for name in ("MESA_SHADER_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "full"))
    with Worker(device) as worker:
        assert worker.pid is not None
        before = set(tmp_path.rglob("*"))  # a worker on a software adapter compiles a program as it starts
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, 0))
        for factor in ("2.0", "(1.0 + 1.0)"):  # neither is in any cache
            program = elementwise(f"y[id.x] = {factor} * x[id.x] + 0.0 * f32({time.time_ns() % 1_000_000});")
            result = worker.measure(job(program, doubling))
            assert result.state is TrialState.OK, result.error
        assert worker.consecutive_faults == 0
    new = [path for path in set(tmp_path.rglob("*")) - before if path.is_file() and path.name != "index"]
    written = [path for path in new if path.stat().st_size]
    assert not written, "the driver cached what it compiled: the disk was not full"


@linux
def test_a_killed_worker_is_booked_where_it_is_fresh_and_tried_again_where_it_is_not(
    device: Device, doubling: Path
) -> None:
    with Worker(device, Timeouts(run_s=3)) as worker:
        killed = threading.Timer(1.5, lambda: os.kill(worker.pid or 0, signal.SIGKILL))
        killed.start()
        result = worker.measure(job(ENDLESS, doubling))
        killed.join()
        assert result.state is TrialState.RUN_ERROR and "SIGKILL" in result.error and "running" in result.error
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)  # so that it dies within the next job, which is not to blame
        killed = threading.Timer(0.5, os.kill, (worker.pid, signal.SIGKILL))
        killed.start()
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
        assert worker.consecutive_faults == 0


def _virtual_memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def test_faster_than_possible_is_not_believed(worker: Worker, doubling: Path) -> None:
    result = worker.measure(job(DOUBLING, doubling, floor_s=1.0))
    assert result.state is TrialState.IMPLAUSIBLE
    assert result.samples_s and "1 s" in result.error


def test_a_lost_device_is_named(device: Device, doubling: Path) -> None:
    backend = WebGpuBackend(device)
    backend.gpu.destroy()
    assert measure(job(DOUBLING, doubling), backend, lambda phase: None).state is TrialState.DEVICE_LOST


def test_exhausted_memory_is_not_a_build_error(device: Device) -> None:
    result = WebGpuBackend(device).failure(wgpu.GPUOutOfMemoryError("Not enough memory left"), JobPhase.LOADING)
    assert result is not None
    assert result.state is TrialState.RUN_ERROR and "memory" in result.error


def test_what_the_device_cannot_offer_is_a_build_error_with_numbers(worker: Worker, doubling: Path) -> None:
    limits = worker.device.limits
    threads = limits["maxComputeInvocationsPerWorkgroup"]
    refused = {
        f"maxComputeInvocationsPerWorkgroup = {threads + 1}": replace(
            DOUBLING, needs=replace(DOUBLING.needs, threads=threads + 1)
        ),
        "no-such-feature": replace(DOUBLING, needs=replace(DOUBLING.needs, features=("no-such-feature",))),
        f"maxStorageBufferBindingSize is {limits['maxStorageBufferBindingSize']}": replace(
            DOUBLING, scratch=(limits["maxStorageBufferBindingSize"] + 4,)
        ),
        "maxComputeWorkgroupsPerDimension": elementwise(
            "y[id.x] = 0.0;", groups=limits["maxComputeWorkgroupsPerDimension"] + 1
        ),
        "declares 2 bindings": replace(
            DOUBLING, dispatches=(replace(DOUBLING.dispatches[0], buffers=DOUBLING.dispatches[0].buffers[:1]),)
        ),
    }
    for words, program in refused.items():
        result = worker.measure(job(program, doubling))
        assert result.state is TrialState.BUILD_ERROR and words in result.error
    assert worker.consecutive_faults == 0


def test_a_case_that_is_no_use_is_not_booked_on_the_candidate(worker: Worker, doubling: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not tensors")
    for path in (damaged, tmp_path / "missing.safetensors"):
        with pytest.raises(WgtuneError, match=path.name) as raised:
            worker.measure(job(DOUBLING, path))
        assert raised.value.hint
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK


def test_ctrl_c_in_the_terminal_does_not_reach_the_child(worker: Worker, doubling: Path) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    before = worker.pid
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    assert worker.pid == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("busy", [False, True])
def test_the_child_goes_with_a_killed_parent(doubling: Path, busy: bool) -> None:
    """Also while a dispatch keeps it in the driver."""
    program = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from pathlib import Path
from sample_programs import ENDLESS, job
from wgtune.devices.discovery.discovery import discover, select
from wgtune.devices.worker.worker import Worker
with Worker(select("auto", discover().devices)) as worker:
    print(worker.pid, flush=True)
    if {busy}:
        worker.measure(job(ENDLESS, Path({str(doubling)!r})))
    sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(2 if busy else 0.2)
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _exists(child):
        assert time.monotonic() < deadline, "the worker's child outlives its parent"
        time.sleep(0.05)


def _exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
