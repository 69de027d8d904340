"""What GPU tests share: the adapter and a case. Any Vulkan, Metal or D3D12 adapter will do, a software one too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sample_programs import SIZE

from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import discover, select
from wgtune.devices.worker.worker import Worker


@pytest.fixture(scope="session")
def device() -> Device:
    """The best adapter of this machine. Without one the tests fail: `make` installs Mesa's software driver."""
    found = discover()
    return select("auto", found.devices, found.problems)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Two software adapters of this machine: Mesa's llvmpipe, and the SwiftShader that Chromium brings.

    What a test starts sees both. Without them the tests fail: `make` installs Mesa's driver and Chromium.
    """
    drivers = [
        next((str(path) for pattern in patterns for path in sorted(Path("/").glob(pattern))), None)
        for patterns in (
            ("usr/share/vulkan/icd.d/lvp_icd*.json",),
            (
                "usr/lib/chromium*/vk_swiftshader_icd.json",
                "snap/chromium/current/usr/lib/chromium*/vk_swiftshader*.json",
            ),
        )
    ]
    assert all(drivers), f"two Vulkan drivers are needed, found {drivers}; `make vulkan chromium` installs them"
    monkeypatch.setenv("VK_ICD_FILENAMES", ":".join(filter(None, drivers)))
    found = discover()
    devices = [device for device in found.devices if device.backend == "vulkan"]
    assert len(devices) == 2, (devices, found.problems)
    return sorted(devices, key=lambda device: device.key)


@pytest.fixture(scope="session")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case that expects y = 2 x."""
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    path = tmp_path_factory.mktemp("cases") / "doubling.safetensors"
    save_file({"arg0": x, "expected1": 2 * x}, path)
    return path


@pytest.fixture
def worker(device: Device) -> Iterator[Worker]:
    """A worker with its usual time limits."""
    with Worker(device) as running:
        yield running
