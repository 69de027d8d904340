"""Models and devices that the options of several commands name."""

from __future__ import annotations

from collections.abc import Sequence

from ..devices.device import Device
from ..devices.discovery.discovery import CPU, discover, select, select_several
from ..devices.limits import find_tier
from ..support.console import progress, warn
from ..support.enums import AttentionForm, ComputePrecision, Runtime, WeightPrecision
from ..tuner.capture.model_capture import capture_model
from ..tuner.capture.sources import resolve_model
from ..tuner.ir import Capture, CaptureOptions


def captured(model: str, options: CaptureOptions, stages: list[str] | None) -> Capture:
    """Capture the model that `--model` names, with progress. Raises WgtuneError where it fails."""
    with progress("Capturing") as report:
        return capture_model(resolve_model(model), options, stages, progress=lambda what: report(what, 0.0))


def split_specs(specs: Sequence[str] | None) -> list[str]:
    """Return the words given to `--device`, whether separated by commas or by repeating the option."""
    return [word.strip() for spec in specs or () for word in spec.split(",") if word.strip()]


def found_device(spec: str) -> Device:
    """Return the device that ``spec`` names, warning of drivers that fail. Raises DeviceError where there is none."""
    found = discover()
    device = select(spec, found.devices, found.problems)
    for problem in found.problems:
        warn(problem)
    return device


def found_devices(specs: list[str] | None) -> list[Device]:
    """Return the devices that ``specs`` name, warning of drivers that fail. Raises DeviceError where one is missing."""
    found = discover(more=[CPU] if any(word.startswith(f"{CPU}:") for word in split_specs(specs)) else [])
    devices = select_several(specs or [], found.devices, found.problems)
    for problem in found.problems:
        warn(problem)
    for device in devices:
        if device.runtime in (Runtime.TVM_CUDA, Runtime.TVM_METAL):
            warn(
                f"{device.key}: nobody has tried wgtune with TVM's {device.backend} runtime; look at the first records"
            )
    return devices


def capture_options(
    width: int | None,
    height: int | None,
    batch: int,
    guidance: bool,
    weights: WeightPrecision,
    attention: AttentionForm,
    tier: str = "default",
    compute: ComputePrecision = ComputePrecision.F32,
) -> CaptureOptions:
    """Return the capture options of a command; raise UsageError for an unknown tier."""
    most = find_tier(tier).limits["maxStorageBufferBindingSize"]
    return CaptureOptions(width, height, batch, guidance, most, weights, attention, compute)
