"""Several devices side by side: each has its session, and what happens to one concerns no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from wgtune.database.schema.records import SessionOutcome
from wgtune.database.store import Store
from wgtune.devices.browser.page_registry import PageRegistry
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.reports.live.fleet import FleetView
from wgtune.support.enums import TrialState
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.fleet.browser_source import BrowserSource
from wgtune.tuner.fleet.fleet import FleetRequest, tune_fleet
from wgtune.tuner.ir import CaptureOptions
from wgtune.tuner.session.events import Event, TrialEnded
from wgtune.tuner.session.request import TuneRequest

MODULE = "wgtune.tuner.fleet.session_process"


class Watcher(FleetView):
    """A view that also calls back after each ended trial."""

    def __init__(self, on_trial: Callable[[str], None] = lambda device: None) -> None:
        super().__init__()
        self._on_trial = on_trial

    def on(self, device: str, event: Event) -> None:
        super().on(device, event)
        if isinstance(event, TrialEnded):
            self._on_trial(device)

    def stopping(self, at_once: bool) -> None:
        self.is_stopping = True

    def tick(self) -> None:
        pass


@pytest.fixture
def fleet(demo_folder: Path, demo_cache: Path, device: Device, tmp_path: Path) -> FleetRequest:
    """Three small kernels of the demo model, each with two trials beside the baseline."""
    capture = capture_model(resolve_model(str(demo_folder)), CaptureOptions(), ["clip"])
    kernels = [kernel.name for kernel in capture.kernels.values()][:3]
    request = TuneRequest(capture, device, TIERS["default"], stages=["clip"], kernels=kernels, trials=2)
    return FleetRequest(str(demo_folder), CaptureOptions(), request, str(tmp_path / "tuned.db"))


def processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if MODULE in child.cmdline()]


def sessions(fleet: FleetRequest) -> dict[str, list[SessionOutcome]]:
    found: dict[str, list[SessionOutcome]] = {}
    with Store.open(fleet.database, create=False) as store:
        for record in store.sessions():
            found.setdefault(record.info.device.key, []).append(record.outcome)
    return found


def test_two_devices_tune_side_by_side(fleet: FleetRequest, two_devices: list[Device]) -> None:
    at_work: list[int] = []
    summary = tune_fleet(fleet, two_devices, Watcher(lambda _: at_work.append(len(processes()))))
    assert [o.device for o in summary.outcomes] == [device.key for device in two_devices]
    assert not summary.failed and not summary.interrupted
    for outcome in summary.outcomes:
        assert outcome.summary is not None and outcome.summary.measured == 3
    assert sessions(fleet) == {device.key: [SessionOutcome.COMPLETED] for device in two_devices}
    assert max(at_work) == 2, "one after the other"
    with Store.open(fleet.database, create=False) as store:
        for device in two_devices:
            assert len(store.best(device.key, list(fleet.request.capture.kernels))) == 3
    assert processes() == []
    # Another session would try what each found while the other was at work, and how much that is depends on timing.
    no_transfer = replace(fleet, request=replace(fleet.request, transfer=False))
    again = tune_fleet(no_transfer, two_devices, Watcher())
    assert all(o.summary is not None and o.summary.session_id is None for o in again.outcomes)


def test_a_killed_process_goes_on_and_the_other_never_notices(fleet: FleetRequest, two_devices: list[Device]) -> None:
    killed: list[psutil.Process] = []

    def kill_one(_: str) -> None:
        if not killed:
            killed.append(processes()[0])
            killed[0].kill()

    watcher = Watcher(kill_one)
    summary = tune_fleet(fleet, two_devices, watcher)
    assert killed and sorted(o.restarts for o in summary.outcomes) == [0, 1]
    assert [(o.error, o.summary.measured if o.summary else None) for o in summary.outcomes] == [("", 3)] * 2
    (died,) = [o.device for o in summary.outcomes if o.restarts]
    found = sessions(fleet)
    assert sorted(map(len, found.values())) == [1, 2] or len(found[died]) == 1  # killed before it had a session
    assert found[died][0] is SessionOutcome.COMPLETED  # the last one comes first
    with Store.open(fleet.database, create=False) as store:
        for device in two_devices:
            counts = store.counts(device.key, list(fleet.request.capture.kernels))
            assert not any(TrialState.RUNNING in states for states in counts.values())


def test_a_device_that_is_not_there_costs_only_itself(fleet: FleetRequest, device: Device) -> None:
    gone = replace(device, key="vulkan:gone")
    watcher = Watcher()
    summary = tune_fleet(fleet, [gone, device], watcher)
    assert [o.device for o in summary.failed] == ["vulkan:gone"]
    assert "no longer there" in summary.failed[0].error and summary.failed[0].hint
    assert summary.outcomes[1].summary is not None and summary.outcomes[1].summary.measured == 3
    assert watcher.given_up == {"vulkan:gone"} and "given up" in watcher.state("vulkan:gone")


def test_a_process_that_always_dies_is_given_up(
    fleet: FleetRequest, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No file can be opened as a database there: the process refuses, and is not started again.
    refused = tune_fleet(replace(fleet, database=str(tmp_path)), [device], Watcher())
    assert refused.failed and refused.outcomes[0].restarts == 0 and "folder" in refused.failed[0].error
    # Any death before a trial has ended: started again three times.
    monkeypatch.setattr("wgtune.tuner.fleet.fleet._MODULE", "wgtune.no_such_module")
    died = tune_fleet(fleet, [device], Watcher())
    assert died.outcomes[0].restarts == 3 and "exit status 1" in died.failed[0].error


@pytest.fixture
def command(fleet: FleetRequest, two_devices: list[Device]) -> Iterator[subprocess.Popen[str]]:
    """`wgtune tune --device all` on many trials."""
    kernels = [word for name in fleet.request.kernels or () for word in ("--kernels", name)]
    words = ["tune", "-m", fleet.model, "--stage", "clip", *kernels, "--trials", "200", "--db", str(fleet.database)]
    child = subprocess.Popen(
        [sys.executable, "-m", "wgtune", *words, "--device", "all", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    yield child
    # Only what this fixture started: the worker that runs the tests may have a browser and a PostgreSQL server, too.
    if child.poll() is None:
        for process in (*psutil.Process(child.pid).children(recursive=True), child):
            process.kill()
    child.communicate()


def wait_for_trials(command: subprocess.Popen[str], fleet: FleetRequest, two_devices: list[Device]) -> None:
    deadline = time.monotonic() + 120
    kernels = list(fleet.request.capture.kernels)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        assert command.poll() is None, command.communicate()
        if Path(str(fleet.database)).is_file():
            with Store.open(fleet.database) as store:
                if all(store.counts(device.key, kernels) for device in two_devices):
                    return
    raise AssertionError("no trial within two minutes")


def test_ctrl_c_ends_all_sessions(
    command: subprocess.Popen[str], fleet: FleetRequest, two_devices: list[Device]
) -> None:
    wait_for_trials(command, fleet, two_devices)
    family = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGINT)
    output, errors = command.communicate(timeout=60)
    assert command.returncode == 130, errors
    assert "Traceback" not in errors and "stopping on every device" in errors
    assert {o["summary"]["outcome"] for o in json.loads(output)} == {"interrupted"}
    assert sessions(fleet) == {device.key: [SessionOutcome.INTERRUPTED] for device in two_devices}
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


def test_when_the_command_is_killed_the_sessions_end(
    command: subprocess.Popen[str], fleet: FleetRequest, two_devices: list[Device]
) -> None:
    wait_for_trials(command, fleet, two_devices)
    family = psutil.Process(command.pid).children(recursive=True)
    command.kill()
    _, alive = psutil.wait_procs(family, timeout=40)
    assert alive == []
    for outcomes in sessions(fleet).values():
        assert outcomes == [SessionOutcome.INTERRUPTED]


def test_a_browser_that_never_comes_holds_up_nobody(fleet: FleetRequest, device: Device) -> None:
    registry = PageRegistry(
        lambda token: f"http://127.0.0.1:1/?token={token}", lambda words: None, wait_s=0.5, at_most=None
    )
    watcher = Watcher()
    summary = tune_fleet(fleet, [device], watcher, BrowserSource(registry, None))
    (native, browser) = summary.outcomes
    assert native.summary is not None and native.summary.measured == 3 and not native.error
    assert browser.device == "browser" and "no browser joined" in browser.error and "address" in browser.hint
    assert (
        watcher.state("browser").startswith("given up: no browser joined")
        and registry.address in watcher.join_instructions
    )
