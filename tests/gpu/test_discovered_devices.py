import os
import subprocess
import sys
from dataclasses import replace

import pytest

from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import discover, select
from wgtune.devices.webgpu.gpu import open_device
from wgtune.support.enums import Runtime
from wgtune.support.errors import DeviceError


def test_every_adapter_says_what_it_is_and_offers() -> None:
    found = discover()
    assert found.problems == []
    for device in found.devices:
        backend, model = device.key.split(":")
        assert backend and model == model.strip("-") and "llvm-1" not in model and "bits" not in model
        assert device.model and device.driver and device.vendor
        assert device.adapter_type in ("discrete", "integrated", "virtual", "cpu", "unknown")
        assert device.software == (device.adapter_type == "cpu")
    best = select("auto", found.devices)
    # WebGPU grants these everywhere (W3C WebGPU, section 3.6.2).
    assert best.limits["maxComputeInvocationsPerWorkgroup"] >= 256
    assert best.limits["maxComputeWorkgroupStorageSize"] >= 16384
    assert best.limits["maxStorageBufferBindingSize"] >= 128 << 20


def test_what_is_discovered_can_be_opened_with_its_features(device: Device) -> None:
    gpu = open_device(device, {"maxBufferSize": 1 << 28}, device.features)
    assert gpu.limits["max-buffer-size"] == 1 << 28
    assert len([f for f in gpu.features if f in ("shader-f16", "subgroup", "timestamp-query")]) == len(device.features)


def test_a_device_that_is_gone_or_offers_less_says_what_is_missing(device: Device) -> None:
    offered = device.limits["maxBufferSize"]
    impossible: list[tuple[Device, dict[str, int], tuple[str, ...], str]] = [
        (replace(device, key="vulkan:unplugged"), {}, (), "no longer there"),
        (device, {"maxBufferSize": offered + 1}, (), f"maxBufferSize = {offered}, but {offered + 1}"),
        (device, {"minStorageBufferOffsetAlignment": 0}, (), "minStorageBufferOffsetAlignment"),
        (device, {"maxWishes": 3}, (), "maxWishes"),
        (device, {}, ("teleportation",), "teleportation"),
        (replace(device, runtime=Runtime.TVM_CUDA), {}, (), "tvm-cuda"),
    ]
    for wanted, limits, features, words in impossible:
        with pytest.raises(DeviceError, match=words) as raised:
            open_device(wanted, limits, features)
        assert raised.value.hint


def test_drivers_print_nothing_on_the_users_terminal() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY")}
    program = (
        "from wgtune.devices.discovery.discovery import discover, select; "
        "from wgtune.devices.webgpu.gpu import open_device;"
        "d = select('auto', discover().devices); open_device(d); print(d.key)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
