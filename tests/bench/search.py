"""Trials until 95 % of the best speed, warm against cold: with the other software adapter's records, or with none.

The kernels are searched on llvmpipe and on SwiftShader, cold, in a database for each. Then each adapter searches each
again in a copy of what the other one found. The goal is 95 % of the speed of the cold search's best. Baselines are
trial 0; trials of known schedules count like those of search. A search that does not get there counts as one trial more
than it made. Times of software adapters scatter by some per cent, so single kernels say little.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wgtune.cli.demo.model import make_demo_pipeline
from wgtune.database.exchange.merge import merge
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import discover
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.ir import Capture, Kernel
from wgtune.tuner.kernel_names import kernel_class
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

OPERATORS = ("conv2d_add", "matmul_add", "attention_scores")
TRIALS = 64
"""Search trials per kernel, cold; a warm search makes half as many at most."""

_SHARE = 0.95
_DRIVERS = (
    "usr/share/vulkan/icd.d/lvp_icd*.json",
    "usr/lib/chromium*/vk_swiftshader_icd.json",
    "snap/chromium/current/usr/lib/chromium*/vk_swiftshader*.json",
)


@dataclass(frozen=True)
class Comparison:
    """Trials of one kernel on one device until the goal; ``best`` is the warm search's best speed by the cold one's."""

    device: str
    kernel: Kernel
    cold: int
    warm: int
    best: float


def software_adapters() -> list[Device]:
    """Both software adapters of this machine; what it starts sees them too."""
    drivers = [str(path) for pattern in _DRIVERS for path in sorted(Path("/").glob(pattern))]
    os.environ["VK_ICD_FILENAMES"] = ":".join(drivers)
    found = [device for device in discover().devices if device.backend == "vulkan" and device.software]
    return sorted(found, key=lambda device: device.key)


def times(capture: Capture, device: Device, kernel: Kernel, database: Path, trials: int, warm: bool) -> list[float]:
    """Seconds of every trial of a new session in their order, infinite for one that failed."""
    request = TuneRequest(
        capture=capture, device=device, kernels=[kernel.id], trials=trials, reason="bench", warm=warm, seed=int(warm)
    )
    with Store.open(str(database)) as store:
        tune(request, store)
        return [
            point.latency_s if point.latency_s is not None else math.inf
            for point in store.history(device.key, [kernel.id], device.runtime)
        ]


def until(taken: Sequence[float], goal: float) -> int:
    """Number of the first trial that took no longer than ``goal``, the first being 0; one more than all if none did."""
    return next((number for number, seconds in enumerate(taken) if seconds <= goal), len(taken))


def compare(
    capture: Capture, devices: Sequence[Device], kernels: Sequence[Kernel], folder: Path, trials: int
) -> list[Comparison]:
    """Search kernels on two devices, cold and then warm."""
    colds = {device.key: folder / f"cold-{number}.db" for number, device in enumerate(devices)}
    cold = {
        (kernel.id, device.key): times(capture, device, kernel, colds[device.key], trials, warm=False)
        for kernel in kernels
        for device in devices
    }
    found = []
    for kernel in kernels:
        for device, other in zip(devices, reversed(devices), strict=True):
            database = folder / f"warm-{len(found)}.db"
            merge([str(colds[other.key])], str(database))
            warm = times(capture, device, kernel, database, max(1, trials // 2), warm=True)
            taken = cold[kernel.id, device.key]
            best = min(taken)
            goal = best / _SHARE
            found.append(Comparison(device.key, kernel, until(taken, goal), until(warm, goal), best / min(warm)))
    return found


def ratio(found: Sequence[Comparison]) -> float:
    """Warm trials over cold ones: the geometric mean, of the trials plus one because a baseline may get there."""
    return math.exp(sum(math.log((1 + one.warm) / (1 + one.cold)) for one in found) / len(found))


def run(console: Console, trials: int = TRIALS, operators: Sequence[str] = OPERATORS) -> None:
    """Compare on the demo model's heaviest kernel of each operator, and print the ratio per class."""
    devices = software_adapters()
    if len(devices) != 2:
        console.print(f"search: llvmpipe and SwiftShader are needed; here are {[device.key for device in devices]}")
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        capture = capture_model(resolve_model(str(make_demo_pipeline(Path(folder) / "model"))))
        kernels = [
            max(
                (kernel for kernel in capture.kernels.values() if kernel.name.startswith(operator)),
                key=lambda kernel: (kernel.flops, kernel.id),
            )
            for operator in operators
        ]
        names = ", ".join(kernel.name for kernel in kernels)
        console.print(f"Searching {names}, {trials} trials cold, {trials // 2} warm, on each adapter …")
        found = compare(capture, devices, kernels, Path(folder), trials)
    table = Table(title=f"Trials until {_SHARE:.0%} of the speed of the best of {trials}, cold")
    for header in ("kernel", "adapter", "cold", "warm", "warm's best, speed"):
        table.add_column(header, justify="left" if header in ("kernel", "adapter") else "right")
    for one in found:
        table.add_row(one.kernel.name, one.device, str(one.cold), str(one.warm), f"{one.best:.2f}")
    console.print(table)
    for kind in dict.fromkeys(kernel_class(one.kernel.name) for one in found):
        some = [one for one in found if kernel_class(one.kernel.name) is kind]
        console.print(f"{kind.value}: warm takes {ratio(some):.2f} × the trials of cold")
    console.print(f"all: {ratio(found):.2f} ×")
