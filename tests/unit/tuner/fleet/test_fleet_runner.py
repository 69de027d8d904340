"""What the fleet's runner does with signals and processes, with a process that is none."""

from __future__ import annotations

import queue
import signal
import threading
from typing import Any, cast

import pytest

from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.reports.live.fleet import FleetView
from wgtune.support.child_process import ChildDied
from wgtune.support.enums import Runtime
from wgtune.tuner.fleet.fleet import FleetRequest, tune_fleet
from wgtune.tuner.ir import Capture, CaptureOptions
from wgtune.tuner.session.request import TuneRequest

GPU = Device("vulkan:a", "vulkan", "vendor", "architecture", "a", "1.0", "discrete", False, {}, (), Runtime.WGPU, 0)


class FakeChild:
    """A session's process that ends when it is told to stop; Ctrl-C comes while it starts."""

    started: list[FakeChild]

    def __init__(self, module: str) -> None:
        self.sent: list[str] = []
        self.killed = False
        self._stopped: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.started.append(self)
        signal.raise_signal(signal.SIGINT)

    def send(self, message: dict[str, Any]) -> None:
        self.sent += message
        if "stop" in message:
            self._stopped.put(None)

    def receive(self, deadline: float) -> dict[str, Any]:
        self._stopped.get()
        raise ChildDied("ended with exit status 130", "")

    def kill(self) -> None:
        self.killed = True


class Watcher(FleetView):
    """A view of the fleet as it stops."""

    def stopping(self, at_once: bool) -> None:
        assert not at_once
        self.is_stopping = True

    def tick(self) -> None:
        assert threading.current_thread() is threading.main_thread()


@pytest.mark.timeout(20)
def test_ctrl_c_while_a_process_starts_stops_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeChild, "started", [], raising=False)
    monkeypatch.setattr("wgtune.tuner.fleet.fleet.Child", FakeChild)
    request = TuneRequest(cast(Capture, None), GPU, TIERS["default"])
    watcher = Watcher()
    summary = tune_fleet(FleetRequest("model", CaptureOptions(), request, None), [GPU], watcher)
    (child,) = FakeChild.started
    assert child.sent == ["task", "stop"] and child.killed
    assert summary.interrupted and not summary.failed and watcher.is_stopping
