"""What measuring does for the quirks of one driver, and leaves out for every other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sample_programs import DOUBLING

from wgtune.devices import quirks
from wgtune.devices.device import Device
from wgtune.devices.quirks import DriverMatch, Quirk, Quirks
from wgtune.devices.webgpu import backend as module
from wgtune.devices.webgpu import driver_threads
from wgtune.devices.webgpu.backend import WebGpuBackend


def submissions_before_the_first_run(device: Device, case: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Open the device and compile; return how often threads were pinned, and how many passes were encoded."""
    pinned: list[object] = []
    grids: list[tuple[int, int, int]] = []
    encode = module.layer.encode
    monkeypatch.setattr(driver_threads, "give_each_thread_a_core", pinned.append)
    opened = WebGpuBackend(device)
    monkeypatch.setattr(
        module.layer, "encode", lambda gpu, steps: (grids.extend(s.grid for s in steps), encode(gpu, steps))[1]
    )
    opened.load(case, DOUBLING)
    steps, _ = opened.compile(DOUBLING)
    assert [step.grid for step in steps] == [dispatch.grid for dispatch in DOUBLING.dispatches]
    assert set(grids) <= {(0, 0, 0)}
    return len(pinned), len(grids)


def test_a_device_without_quirks_gets_no_remedies(
    device: Device, doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quirks, "QUIRKS", ())
    assert submissions_before_the_first_run(device, doubling, monkeypatch) == (0, 0)


def test_a_quirk_of_its_driver_acts_on_a_device_and_one_of_another_does_not(
    device: Device, doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect = Quirks(compiles_at_first_dispatch=True, pinned_threads=True)
    for model, expected in ((re.escape(device.model), (1, 1)), ("another", (0, 0))):
        made_up = Quirk(DriverMatch(model), "what", "reason", "seen", "remedy", effect)
        monkeypatch.setattr(quirks, "QUIRKS", (made_up,))
        with monkeypatch.context() as patch:
            assert submissions_before_the_first_run(device, doubling, patch) == expected
