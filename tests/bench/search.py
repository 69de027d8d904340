"""Trials until 95 % of the best speed, warm against cold: with the other software adapter's records, or with none.

The kernels are searched on llvmpipe and on SwiftShader, cold, in a database for each. Then each adapter searches each
again in a copy of what the other one found. The goal is 95 % of the speed of the cold search's best. Trials are counted
and compared as `wgtune report search` does. Times of software adapters scatter by some per cent, so single kernels say
little.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wgtune.cli.demo.model import make_demo_pipeline
from wgtune.database.exchange.merge import merge
from wgtune.database.queries.search_history import search_histories
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import discover
from wgtune.reports.search_progress import KernelSearch, Progress, compared, progress
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
class Pair:
    """The searches for one kernel on one device; for both the best known time is the cold one's."""

    device: str
    cold: KernelSearch
    warm: KernelSearch

    @property
    def best(self) -> float:
        """The warm search's best speed by the cold one's."""
        return self.warm.speed(self.warm.progress.trials)


def software_adapters() -> list[Device]:
    """Both software adapters of this machine; what it starts sees them too."""
    drivers = [str(path) for pattern in _DRIVERS for path in sorted(Path("/").glob(pattern))]
    os.environ["VK_ICD_FILENAMES"] = ":".join(drivers)
    found = [device for device in discover().devices if device.backend == "vulkan" and device.software]
    return sorted(found, key=lambda device: device.key)


def searched(capture: Capture, device: Device, kernel: Kernel, database: Path, trials: int, warm: bool) -> Progress:
    """Search once more, in a database without trials of this device, and return the progress."""
    request = TuneRequest(
        capture=capture, device=device, kernels=[kernel.id], trials=trials, reason="bench", warm=warm, seed=int(warm)
    )
    with Store.open(str(database)) as store:
        tune(request, store)
        history = search_histories(store, device.key, [kernel.id], device.runtime)[kernel.id]
        return progress(history, {one.session_id for one in history} if warm else ())


def compare(
    capture: Capture, devices: Sequence[Device], kernels: Sequence[Kernel], folder: Path, trials: int
) -> list[Pair]:
    """Search kernels on two devices, cold and then warm."""
    colds = {device.key: folder / f"cold-{number}.db" for number, device in enumerate(devices)}
    cold = {
        (kernel.id, device.key): searched(capture, device, kernel, colds[device.key], trials, warm=False)
        for kernel in kernels
        for device in devices
    }
    found = []
    for kernel in kernels:
        for device, other in zip(devices, reversed(devices), strict=True):
            database = folder / f"warm-{len(found)}.db"
            merge([str(colds[other.key])], str(database))
            taken = cold[kernel.id, device.key]
            warm = searched(capture, device, kernel, database, max(1, trials // 2), warm=True)
            best = taken.at(taken.trials)
            assert best is not None, "a session without a verified baseline ends in an error"
            kind = kernel_class(kernel.name)
            sides = (KernelSearch(kernel.name, kernel.id, kind, side, best) for side in (taken, warm))
            found.append(Pair(device.key, *sides))
    return found


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
        needed = (str(side.needed(_SHARE)) for side in (one.cold, one.warm))
        table.add_row(one.cold.name, one.device, *needed, f"{one.best:.2f}")
    console.print(table)
    for kind in dict.fromkeys(one.cold.kind for one in found):
        _print_ratio(console, kind.value, [one for one in found if one.cold.kind is kind])
    _print_ratio(console, "all", found)


def _print_ratio(console: Console, name: str, found: Sequence[Pair]) -> None:
    made = compared(name, [(one.cold, one.warm) for one in found], _SHARE)
    console.print(f"{name}: warm takes {made.shown} the trials of cold")
