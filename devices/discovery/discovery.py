"""Discovery of this machine's GPUs in child processes, and selection by what the user names."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...support.child_process import describe_exit
from ...support.enums import Runtime
from ...support.errors import DeviceError
from ..device import Device

_SOURCES = {
    "linux": ("vulkan", "gl", Runtime.TVM_CUDA.value),
    "darwin": ("metal", Runtime.TVM_METAL.value),
    "win32": ("d3d12", "vulkan", "gl", Runtime.TVM_CUDA.value),
}
CPU = Runtime.TVM.value
"""Driver family of one device, the processor through TVM's native code. Probed only where asked for."""

_INSTALL = {
    "linux": "install your GPU's Vulkan driver, or a software one: on Debian and Ubuntu, "
    "`sudo apt-get install libvulkan1 mesa-vulkan-drivers`",
    "darwin": "WebGPU needs a Mac with Metal, and a session that may use it",
    "win32": "install your GPU's driver from its maker",
}
_KINDS = ("discrete", "integrated", "virtual", "unknown", "cpu")
_BACKENDS = ("vulkan", "metal", "d3d12", "gl")


@dataclass(frozen=True)
class Discovery:
    """Devices found, in the order that their drivers report them, and a sentence for each family that failed."""

    devices: list[Device] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def discover(timeout_s: float = 30, more: Sequence[str] = ()) -> Discovery:
    """Return every wgpu adapter of this machine, then TVM's CUDA or Metal devices, then those of ``more`` families.

    Each family of drivers is probed in a child process of its own, all at once. A family that crashes or hangs loses
    only its own devices, and is named in ``problems``. Raises nothing.

    Args:
        timeout_s: Seconds after which this returns at the latest.
        more: Further families; `CPU` is the only one.
    """
    deadline = time.monotonic() + timeout_s
    found = Discovery()
    children = {s: _start(s) for s in (*_SOURCES.get(sys.platform, _SOURCES["linux"]), *more)}
    try:
        for source, child in children.items():
            try:
                output, errors = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
                found.devices.extend(Device.from_json(item) for item in json.loads(output))
            except subprocess.TimeoutExpired:
                found.problems.append(f"{source}: the driver did not answer within {timeout_s:g} s")
            except ValueError:
                words = errors.decode(errors="replace").strip().splitlines()
                last = f": {words[-1]}" if words else ""
                found.problems.append(f"{source}: asking the driver {describe_exit(child.returncode)}{last}")
    finally:
        for child in children.values():
            _end(child)
    return found


def find_device(spec: str = "auto") -> Device:
    """Ask all drivers of this machine and return the device that ``spec`` means, as `select` does.

    Raises DeviceError that lists what there is.
    """
    found = discover()
    return select(spec, found.devices, found.problems)


def select(spec: str, devices: Sequence[Device], problems: Sequence[str] = ()) -> Device:
    """Return the device that ``spec`` names.

    Args:
        spec: ``auto`` for the best one that runs WGSL (hardware before software, discrete before integrated, Vulkan,
            Metal and D3D12 before OpenGL); a key; ``#n`` for the n-th of ``devices``, counted from 0; or a part of a
            key or model that only one device has.
        devices: What to choose from.
        problems: Sentences to add to the error where ``devices`` is empty.

    Raises:
        DeviceError: No device fits, or several do. Lists the devices.
    """
    if not devices:
        details = "".join(f"\n  {problem}" for problem in problems)
        raise DeviceError("no GPU adapter was found on this machine" + details, _INSTALL.get(sys.platform, ""))
    if spec == "auto":
        candidates = [device for device in devices if device.runtime is Runtime.WGPU]
        if not candidates:
            raise DeviceError(f"no adapter runs WebGPU; there is:\n{_listed(devices)}", _INSTALL.get(sys.platform, ""))
        return min(candidates, key=_rank)
    if spec.startswith("#"):
        number = spec[1:]
        if number.isdecimal() and int(number) < len(devices):
            return devices[int(number)]
        raise DeviceError(f"there is no device {spec}; there is:\n{_listed(devices)}", "choose one of these numbers")
    for device in devices:
        if device.key == spec:
            return device
    wanted = spec.lower()
    matches = [device for device in devices if wanted in device.key or wanted in device.model.lower()]
    if len({device.key for device in matches}) == 1:
        return matches[0]
    if matches:
        raise DeviceError(f"{spec!r} fits more than one device:\n{_listed(devices)}", "give more of the name, or #n")
    raise DeviceError(f"no device fits {spec!r}; there is:\n{_listed(devices)}", "name one of these, or `auto`")


def select_several(specs: Sequence[str], devices: Sequence[Device], problems: Sequence[str] = ()) -> list[Device]:
    """Return the devices that ``specs`` name, in the order named, each once.

    A spec is one or more words, separated by commas, each as `select` takes it. ``all`` is every GPU that runs WGSL,
    once, through its best API: OpenGL only where nothing else reaches a GPU, and software adapters only where there is
    no hardware. Raises DeviceError as `select` does.
    """
    words = [word.strip() for spec in specs for word in spec.split(",") if word.strip()]
    chosen: list[Device] = []
    for word in words or ["auto"]:
        if word == "all":
            select("auto", devices, problems)  # raises where there is none
            found = _every(devices)
        else:
            found = [select(word, devices, problems)]
        chosen += [device for device in found if device not in chosen]
    return chosen


def labels(devices: Sequence[Device]) -> list[str]:
    """Return a distinct label for each of ``devices``: its key, with its index where two have the same key."""
    keys = [device.key for device in devices]
    return [f"{d.key} [{d.index}]" if keys.count(d.key) > 1 else d.key for d in devices]


def _every(devices: Sequence[Device]) -> list[Device]:
    usable = [device for device in devices if device.runtime is Runtime.WGPU]
    usable = [device for device in usable if not device.software] or usable
    usable = [device for device in usable if device.backend != "gl"] or usable
    best: dict[str, Device] = {}
    for device in sorted(usable, key=_rank):
        best.setdefault(device.model, device)
    return [device for device in usable if device.backend == best[device.model].backend]


def _start(source: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "wgtune.devices.discovery.probe", source],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        # A process stuck in a driver's kernel code cannot be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=1)


def _rank(device: Device) -> tuple[bool, int, int]:
    backend = _BACKENDS.index(device.backend) if device.backend in _BACKENDS else len(_BACKENDS)
    return device.software, _KINDS.index(device.adapter_type), backend


def _listed(devices: Sequence[Device]) -> str:
    return "\n".join(f"  #{i}  {device.key}  ({device.model}, {device.driver})" for i, device in enumerate(devices))
