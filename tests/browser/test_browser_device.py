"""A browser as a device: programs of every kind in a page that Chromium opens, and pages that go away."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from lending import lend, start_another
from playwright.sync_api import Browser
from safetensors.numpy import save_file
from sample_programs import BROKEN, DOUBLING, ENDLESS, NANS, SILENT, SIZE, TRIPLING, elementwise, job

from wgtune.devices.browser.server import BrowserServer
from wgtune.devices.browser.worker import BrowserWorker
from wgtune.devices.measure.job import Measurement, Sampling, Timeouts
from wgtune.support.enums import CacheState, Runtime, TrialState
from wgtune.support.errors import DeviceError, UsageError
from wgtune.web.built_pages import lender_dir

TIMEOUTS = Timeouts(compile_s=20, run_s=15)
# Still running when Chromium's GPU process dies.
SLOW = elementwise(
    "var s = 0.0; for (var j = 0u; j < 8000u; j++) { s = s * 0.5 + x[(j + id.x) % 1024u]; } y[id.x] = s;", 4096
)


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    path = tmp_path_factory.mktemp("cases") / "doubling.safetensors"
    save_file({"arg0": x, "expected1": 2 * x}, path)
    return path


def kill_gpu_process() -> None:
    """Of the browser that was started last."""
    children = psutil.Process().children(recursive=True)
    gpu = []
    for child in children:
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            gpu += [child] if "--type=gpu-process" in child.cmdline() else []
    max(gpu, key=lambda process: process.create_time()).kill()


@pytest.fixture
def said() -> list[str]:
    """What a user reads in the terminal."""
    return []


@pytest.fixture
def server(said: list[str]) -> Iterator[BrowserServer]:
    with BrowserServer(lender_dir(), said.append, port=0, wait_s=30, at_most=1) as running:
        yield running


@pytest.fixture
def worker(server: BrowserServer, browser: Browser) -> Iterator[BrowserWorker]:
    page = lend(browser, server.registry.address)
    yield BrowserWorker(server.registry.wait_for_first(), TIMEOUTS)
    page.close()


def test_a_page_becomes_a_device(server: BrowserServer, browser: Browser) -> None:
    page = lend(browser, server.registry.address)
    device = server.registry.wait_for_first().device
    assert device.key == "browser:chrome-google-swiftshader" and device.runtime is Runtime.BROWSER
    assert device.software and device.driver.startswith("chrome ")
    assert device.limits["maxComputeInvocationsPerWorkgroup"] >= 256 and "timestamp-query" in device.features
    page.close()


def test_programs_end_in_their_states(worker: BrowserWorker, doubling: Path) -> None:
    ok = worker.measure(job(DOUBLING, doubling))
    assert ok.state is TrialState.OK, ok.error
    assert ok.timer == "timestamp" and len(ok.samples_s) >= 3 and ok.max_error == 0
    assert all(0 < sample < 0.05 for sample in ok.samples_s)
    wrong = worker.measure(job(TRIPLING, doubling))
    assert wrong.state is TrialState.WRONG_RESULT and wrong.max_error == pytest.approx(1) and not wrong.samples_s
    assert worker.measure(job(NANS, doubling)).state is TrialState.WRONG_RESULT
    silent = worker.measure(job(SILENT, doubling))
    assert silent.state is TrialState.WRONG_RESULT and "512 are NaN" in silent.error, "the output was not poisoned"
    broken = worker.measure(job(BROKEN, doubling))
    assert broken.state is TrialState.BUILD_ERROR and "line 5" in broken.error
    greedy = replace(DOUBLING, needs=replace(DOUBLING.needs, threads=1 << 20))
    assert worker.measure(job(greedy, doubling)).state is TrialState.BUILD_ERROR
    too_fast = worker.measure(job(DOUBLING, doubling, floor_s=10))
    assert too_fast.state is TrialState.IMPLAUSIBLE and "10 s" in too_fast.error
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK


def test_programs_end_in_their_states_with_the_next_one_compiling_beside_them(
    worker: BrowserWorker, doubling: Path
) -> None:
    """What is wrong with the next program is nobody else's fault, and is heard when its turn comes."""
    wanted = [TrialState.OK, TrialState.WRONG_RESULT, TrialState.BUILD_ERROR, TrialState.WRONG_RESULT]
    programs = [DOUBLING, TRIPLING, BROKEN, SILENT] * 3
    for number, program in enumerate(programs[:-1]):
        result = worker.measure(job(program, doubling, upcoming=programs[number + 1]))
        assert result.state is wanted[number % 4], result.error
        assert "line 5" in result.error or program is not BROKEN
    # Another program than was announced.
    assert worker.measure(job(DOUBLING, doubling, upcoming=BROKEN)).state is TrialState.OK
    assert worker.measure(job(TRIPLING, doubling)).state is TrialState.WRONG_RESULT


def test_a_gpu_lost_while_the_next_program_compiles_is_tried_again_alone(
    server: BrowserServer, browser: Browser, doubling: Path
) -> None:
    browser = start_another(browser)
    page = lend(browser, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), replace(TIMEOUTS, run_s=60))
    results = []
    running = threading.Thread(target=lambda: results.append(worker.measure(job(SLOW, doubling, upcoming=DOUBLING))))
    running.start()
    running.join(1.0)
    kill_gpu_process()
    running.join(100)
    assert results and results[0].state is TrialState.WRONG_RESULT, "it ran to its end the second time"
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    page.close()
    browser.close()


def test_inputs_travel_once_and_fresh_ones_after_they_were_overwritten(
    server: BrowserServer, worker: BrowserWorker, doubling: Path
) -> None:
    registered = server.registry.wait_for_first()
    for _ in range(3):
        assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    assert registered.fetched_bytes == SIZE * 4
    source = DOUBLING.shaders[0].source.replace("var<storage, read> x", "var<storage, read_write> x")
    vandal = replace(DOUBLING, shaders=(replace(DOUBLING.shaders[0], source=source.replace("}", "x[id.x] = 7.0; }")),))
    for program in (vandal, DOUBLING, DOUBLING):
        assert worker.measure(job(program, doubling)).state is TrialState.OK
    assert registered.fetched_bytes == 2 * SIZE * 4


def test_half_precision_and_odd_sizes_keep_their_last_bytes(worker: BrowserWorker, tmp_path: Path) -> None:
    x = np.arange(1001, dtype=np.int32)
    case = tmp_path / "odd.safetensors"
    save_file({"arg0": x.astype(np.int32), "expected1": 2 * x}, case)
    source = """
    @group(0) @binding(0) var<storage, read> x: array<i32>;
    @group(0) @binding(1) var<storage, read_write> y: array<i32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      if (id.x < 1001u) { y[id.x] = 2 * x[id.x]; } }"""
    program = replace(DOUBLING, shaders=(replace(DOUBLING.shaders[0], source=source),))
    assert worker.measure(job(program, case)).state is TrialState.OK


def test_cold_caches_and_peaks(worker: BrowserWorker, doubling: Path) -> None:
    peaks = worker.calibrate()
    assert peaks.flops_per_s > 1e8 and peaks.bytes_per_s > 1e7
    assert 0 < peaks.launch_s < 1e-2 and worker.calibrate() is peaks
    cold = Sampling(min_samples=2, max_samples=2, cache=CacheState.COLD)
    result = worker.measure(job(DOUBLING, doubling, sampling=cold))
    assert result.state is TrialState.OK and len(result.samples_s) == 2, result.error


def test_an_address_serves_one_page(server: BrowserServer, browser: Browser, said: list[str]) -> None:
    address = server.registry.address
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address[:-1] + "!")
    uninvited = browser.new_page()
    uninvited.goto(address.split("?")[0])
    uninvited.wait_for_function("document.getElementById('status').textContent.includes('without its token')")
    uninvited.close()
    page = lend(browser, address)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address)
    thief = browser.new_page()
    thief.goto(address)
    assert "serves one page once" in thief.inner_text("body")
    data = address.split("?")[0] + "data/guess/arg0"
    server.registry.wait_for_first().resources = {"arg0": np.zeros(4)}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(data)
    thief.close()
    page.close()


def test_a_closed_page_is_waited_for_and_its_program_done_by_the_next(
    server: BrowserServer, browser: Browser, doubling: Path, said: list[str]
) -> None:
    page = lend(browser, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), TIMEOUTS)
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    page.close()
    results: list[Measurement] = []
    waiting = threading.Thread(target=lambda: results.append(worker.measure(job(DOUBLING, doubling))))
    waiting.start()
    while not said:
        waiting.join(0.05)
    assert "the page was closed: open http://127.0.0.1:" in said[0]
    page = lend(browser, said[0].split()[5])
    waiting.join(30)
    assert results and results[0].state is TrialState.OK
    page.close()


def test_a_reloaded_tab_goes_on_where_it_was(server: BrowserServer, browser: Browser, doubling: Path) -> None:
    """Phones throw tabs away that are not in front, and load them again."""
    page = lend(browser, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), TIMEOUTS)
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    unused = server.registry.address
    page.reload()
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    assert len(server.registry.browsers()) == 1 and server.registry.address == unused
    page.close()


def test_a_second_tab_of_a_browser_waits_for_the_first(browser: Browser) -> None:
    with BrowserServer(lender_dir(), print, port=0) as server:
        context = browser.new_context()
        first, second = context.new_page(), context.new_page()
        first.goto(server.registry.address)
        first.wait_for_function("document.getElementById('status').textContent.includes('lent')")
        second.goto(server.registry.address)
        second.wait_for_function("document.getElementById('status').textContent.includes('Another tab')")
        assert len(server.registry.browsers()) == 1
        first.close()
        second.wait_for_function("document.getElementById('status').textContent.includes('lent')")
        (registered,) = server.registry.browsers()
        assert not registered.page.gone
        context.close()


def test_a_run_that_waits_in_vain_ends_with_the_reason(said: list[str]) -> None:
    in_vain = pytest.raises(DeviceError, match=r"no browser joined within 0\.3 s")
    with BrowserServer(lender_dir(), said.append, port=0, wait_s=0.3) as server, in_vain:
        server.registry.wait_for_first()
    assert said[0].startswith(f"open {server.registry.address.split('?')[0]}")


def test_what_cannot_be_served_says_so(tmp_path: Path, server: BrowserServer) -> None:
    port = int(server.registry.address.split(":")[2].split("/")[0])
    with pytest.raises(UsageError, match=f"port {port}"):
        BrowserServer(lender_dir(), print, port=port)
    with pytest.raises(UsageError, match="certificate"):
        BrowserServer(lender_dir(), print, port=0, certificate=tmp_path / "none.pem")


def test_a_lost_device_is_booked_on_what_was_running_and_opened_anew(
    server: BrowserServer, browser: Browser, doubling: Path
) -> None:
    browser = start_another(browser)
    page = lend(browser, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), TIMEOUTS)
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    results = []
    running = threading.Thread(target=lambda: results.append(worker.measure(job(SLOW, doubling))))
    running.start()
    running.join(1.0)
    kill_gpu_process()
    running.join(40)
    assert results and results[0].state is TrialState.DEVICE_LOST, results
    assert "lost" in results[0].error
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    page.close()
    browser.close()


def test_pages_closed_at_random_lose_nothing(server: BrowserServer, browser: Browser, doubling: Path) -> None:
    """The tab goes twenty times, at any moment of a job; each job ends, and ends right."""
    chance = random.Random(0)
    page = lend(browser, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), TIMEOUTS)
    jobs = [job(program, doubling) for program in (DOUBLING, TRIPLING, SILENT, BROKEN)] * 200
    ends: list[TrialState] = []
    over = threading.Event()

    def work() -> None:
        for each in jobs:
            if over.is_set():
                return
            ends.append(worker.measure(each).state)

    working = threading.Thread(target=work)
    working.start()
    for _ in range(20):
        page.wait_for_timeout(chance.uniform(0, 150))
        page.close()
        page = lend(browser, server.registry.address)
    # On a slow machine no job may have got through within one page's life: the last page stays until four have.
    deadline = time.monotonic() + 120
    while len(ends) < 4 and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    over.set()
    working.join(60)
    assert not working.is_alive()
    wanted = [TrialState.OK, TrialState.WRONG_RESULT, TrialState.WRONG_RESULT, TrialState.BUILD_ERROR]
    assert len(ends) >= 4 and all(state is wanted[i % 4] for i, state in enumerate(ends)), ends
    page.close()


def test_an_endless_program_times_out_and_a_restarted_browser_goes_on(
    server: BrowserServer, browser: Browser, doubling: Path, said: list[str]
) -> None:
    first = start_another(browser)
    lend(first, server.registry.address)
    worker = BrowserWorker(server.registry.wait_for_first(), Timeouts(compile_s=20, run_s=2), reset_s=2)
    result = worker.measure(job(ENDLESS, doubling))
    assert result.state is TrialState.RUN_TIMEOUT and "within 2 s" in result.error
    results = []
    going_on = threading.Thread(target=lambda: results.append(worker.measure(job(DOUBLING, doubling))))
    going_on.start()
    while not said:
        going_on.join(0.05)
    assert "restart the browser" in said[0]
    first.close()
    second = start_another(browser)
    lend(second, server.registry.address)
    going_on.join(30)
    assert results and results[0].state is TrialState.OK
    second.close()
