"""Browsers among other devices: `wgtune tune --device vulkan:…,browser` from end to end, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from lending import lend
from playwright.sync_api import Browser, Page

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.store import Store
from wgtune.support.enums import Runtime

CHROMIUM = "browser:chrome-google-swiftshader"


class Tuner:
    """`wgtune tune` in a process of its own, and the lines that it writes."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wgtune", "tune", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "FORCE_COLOR"},
        )
        self.lines: list[str] = []
        self._used: set[str] = set()
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def line(self, pattern: str) -> str:
        """The last line that ``pattern`` is found in, which is waited for."""
        with self._news:
            self._news.wait_for(lambda: any(re.search(pattern, line) for line in self.lines), timeout=90)
            found = [line for line in self.lines if re.search(pattern, line)]
        assert found, f"no line with {pattern!r} in:\n{''.join(self.lines)}"
        return found[-1]

    def address(self, words: str = "") -> str:
        """An address that is to be opened, as ``words`` say, and was not given before."""
        unused = "".join(f"(?!{re.escape(address)})" for address in self._used)
        found = re.search(r"http://\S+", self.line(rf"open {unused}http://\S+ {words}"))
        assert found is not None
        self._used.add(found[0])
        return found[0]

    def end(self) -> list[dict]:
        """What it prints as JSON when it has ended."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        self.process.wait(90)
        self._reader.join(10)
        return json.loads(output)


Start = Callable[..., Tuner]


@pytest.fixture
def start(demo_folder: Path, demo_cache: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts to tune some of the demo's kernels on the devices named."""
    started: list[Tuner] = []

    def run(devices: str, trials: int, kernels: str = "matmul_add*") -> Tuner:
        words = ["-m", str(demo_folder), "--stage", "clip", "--kernels", kernels, "--trials", str(trials), "--json"]
        started.append(Tuner([*words, "--device", devices, "--port", "0", "--db", str(tmp_path / "tuned.db")]))
        return started[-1]

    yield run
    for tuner in started:
        if tuner.process.poll() is None:
            family = psutil.Process(tuner.process.pid).children(recursive=True)
            for process in (tuner.process, *family):
                process.kill()


def told(page: Page, words: str) -> None:
    page.wait_for_function(f"document.getElementById('status').textContent.includes({words!r})", timeout=60_000)


def test_a_native_device_and_two_browsers_side_by_side(start: Start, browser: Browser, tmp_path: Path) -> None:
    tuner = start("vulkan:llvmpipe,browser", 4)
    first = lend(browser, tuner.address("in the browser whose GPU"))
    second = lend(browser, tuner.address("in another browser"))
    fresh = tuner.address("in another browser")
    # A tab that is closed is waited for, and the next that is opened takes its place: no third device.
    tuner.line(f"{CHROMIUM}: session")
    first.close()
    tuner.line(f"{CHROMIUM}: the page was closed; waiting for it")
    third = lend(browser, fresh)
    outcomes = {one["device"]: one["summary"] for one in tuner.end()}
    assert tuner.process.returncode == 0, "".join(tuner.lines)
    assert list(outcomes) == ["vulkan:llvmpipe", CHROMIUM, f"{CHROMIUM} [1]"]
    assert all(s["outcome"] == "completed" and s["measured"] == s["kernels"] >= 1 for s in outcomes.values())
    for page in (second, third):
        told(page, "ended")
        page.close()
    with Store.open(str(tmp_path / "tuned.db")) as store:
        sessions = store.sessions()
        assert Counter(one.info.device.key for one in sessions) == {"vulkan:llvmpipe": 1, CHROMIUM: 2}
        kernels = [kernel.workload_id for kernel in store.model_kernels(sessions[0].info.capture_key)]
        tried = [(k, t) for k in kernels for t in store.tried(CHROMIUM, k, Runtime.BROWSER)]
        searched = Counter((k, t.program_digest) for k, t in tried if t.program_digest and t.kind is TrialKind.SEARCH)
        assert searched and max(searched.values()) == 1, "two browsers of one key share the kernels"


def test_ctrl_c_ends_browsers_too_and_a_closed_tab_does_not_hold_it_up(
    start: Start, browser: Browser, tmp_path: Path
) -> None:
    tuner = start("browser", 500, "*")
    pages = [lend(browser, tuner.address()), lend(browser, tuner.address("in another browser"))]
    for name in (rf"{CHROMIUM}: session", rf"{CHROMIUM} \[1\]: session"):
        tuner.line(name)
    pages[0].close()
    tuner.line("the page was closed; waiting for it")
    family = psutil.Process(tuner.process.pid).children(recursive=True)
    tuner.process.send_signal(signal.SIGINT)
    assert {one["summary"]["outcome"] for one in tuner.end()} == {"interrupted"}
    assert tuner.process.returncode == 130 and "Traceback" not in "".join(tuner.lines)
    told(pages[1], "ended")
    pages[1].close()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    with Store.open(str(tmp_path / "tuned.db")) as store:
        assert [one.outcome for one in store.sessions()] == [SessionOutcome.INTERRUPTED] * 2


def test_a_killed_session_goes_on_with_the_page_that_it_had(start: Start, browser: Browser, tmp_path: Path) -> None:
    tuner = start("browser", 2)
    page = lend(browser, tuner.address())
    tuner.line(f"{CHROMIUM}: session")
    (session,) = [
        child
        for child in psutil.Process(tuner.process.pid).children()
        if "wgtune.tuner.fleet.session_process" in child.cmdline()
    ]
    session.kill()
    (outcome,) = tuner.end()
    assert tuner.process.returncode == 0 and outcome["restarts"] == 1, "".join(tuner.lines)
    summary = outcome["summary"]
    assert summary["outcome"] == "completed" and summary["measured"] == summary["kernels"] >= 1
    told(page, "ended")
    page.close()
    with Store.open(str(tmp_path / "tuned.db")) as store:
        last = store.sessions()[0].info
        assert last.runtime is Runtime.BROWSER and last.driver.startswith("chrome ") and last.device.key == CHROMIUM
        kernels = [kernel.workload_id for kernel in store.model_kernels(last.capture_key)]
        best = store.best(CHROMIUM, kernels, Runtime.BROWSER)
        assert len(best) == summary["kernels"] and all(record.timer == "timestamp" for record in best.values())
