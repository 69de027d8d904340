"""Picking a device by the user's words, and drivers that crash, hang or chatter while they are asked."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from wgtune.devices.device import Device
from wgtune.devices.discovery import discovery
from wgtune.devices.discovery.discovery import discover, select
from wgtune.support.enums import Runtime
from wgtune.support.errors import DeviceError

RADEON = Device(
    key="vulkan:amd-radeon-rx-6800",
    backend="vulkan",
    vendor="amd",
    architecture="navi21",
    model="AMD Radeon RX 6800",
    driver="Mesa 26.1",
    adapter_type="discrete",
    software=False,
    limits={"maxBufferSize": 1 << 31},
    features=("shader-f16", "subgroups"),
    runtime=Runtime.WGPU,
    index=0,
)
RADEON_GL = replace(RADEON, key="gl:amd-radeon-rx-6800", backend="gl")
RYZEN = replace(
    RADEON, key="vulkan:amd-radeon-graphics-renoir", model="AMD Radeon Graphics", adapter_type="integrated", index=1
)
LLVMPIPE = replace(
    RADEON, key="vulkan:llvmpipe", model="llvmpipe", vendor="mesa", adapter_type="cpu", software=True, index=2
)
CUDA = replace(RADEON, key="cuda:nvidia-h200", model="NVIDIA H200", backend="cuda", runtime=Runtime.TVM_CUDA)


def test_auto_prefers_hardware_then_discrete_then_webgpus_own_backends() -> None:
    assert select("auto", [LLVMPIPE, RADEON_GL, RYZEN, RADEON]) is RADEON
    assert select("auto", [LLVMPIPE, RYZEN]) is RYZEN
    assert select("auto", [RADEON_GL, RADEON]) is RADEON
    assert select("auto", [CUDA, LLVMPIPE]) is LLVMPIPE  # a device that runs no WGSL is never a default


def test_a_device_is_found_by_key_number_or_part_of_its_name() -> None:
    devices = [LLVMPIPE, RADEON_GL, RYZEN, RADEON, CUDA]
    assert select("vulkan:amd-radeon-rx-6800", devices) is RADEON
    assert select("#0", devices) is LLVMPIPE
    assert select("#4", devices) is CUDA
    assert select("renoir", devices) is RYZEN
    assert select("LLVM", devices) is LLVMPIPE
    assert select("nvidia h2", devices) is CUDA
    assert select("nvidia", [CUDA, replace(CUDA, index=1)]) is CUDA  # two of the same


@pytest.mark.parametrize("spec", ["radeon", "6800", "#5", "#-1", "#x", "geforce"])
def test_what_is_ambiguous_or_not_there_lists_what_there_is(spec: str) -> None:
    with pytest.raises(DeviceError) as raised:
        select(spec, [LLVMPIPE, RADEON_GL, RYZEN, RADEON, CUDA])
    assert "vulkan:llvmpipe" in raised.value.message and "#3  vulkan:amd-radeon-rx-6800" in raised.value.message
    assert raised.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="the hint is the system's")
def test_nothing_found_names_the_package_and_the_problems() -> None:
    with pytest.raises(DeviceError) as raised:
        select("auto", [], ["vulkan: asking the driver was ended by SIGSEGV (signal 11)"])
    assert "SIGSEGV" in raised.value.message
    assert "mesa-vulkan-drivers" in raised.value.hint
    with pytest.raises(DeviceError, match="no adapter runs WebGPU"):
        select("auto", [CUDA])


def test_devices_travel_as_json() -> None:
    for device in (RADEON, CUDA):
        assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device
    with pytest.raises(TypeError):
        Device.from_json({**RADEON.to_json(), "colour": "red"})


def test_a_driver_that_crashes_or_hangs_costs_only_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = f"import json; print(json.dumps([{RADEON.to_json()!r}]))"
    programs = {
        "works": answer,
        "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "raises": "raise OSError('no such driver')",
        "hangs": "import time; time.sleep(600)",
        "works after all": answer,
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(source: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", programs[source]]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(discovery, "_SOURCES", {sys.platform: tuple(programs), "linux": tuple(programs)})
    monkeypatch.setattr(discovery, "_start", start)
    before = time.monotonic()
    found = discover(timeout_s=3)
    assert time.monotonic() - before < 10
    assert found.devices == [RADEON, RADEON]
    crashed, raised, hung = found.problems
    assert crashed.startswith("crashes: ") and "SIGSEGV" in crashed
    assert raised.startswith("raises: ") and "no such driver" in raised
    assert hung == "hangs: the driver did not answer within 3 s"
    assert all(child.poll() is not None for child in started)


def test_looking_for_devices_imports_nothing_heavy() -> None:
    program = (
        "import sys, wgtune.devices.discovery.discovery, wgtune.devices.worker.worker;"
        "print([m for m in ('numpy', 'wgpu', 'tvm', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
