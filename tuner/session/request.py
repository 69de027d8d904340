"""The request for a tuning session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...devices.device import Device
from ...devices.limits import TIERS, Tier
from ...devices.measure.job import Timeouts
from ...devices.quirks import Quirks, quirks_of
from ...support.enums import CacheState, ComputePrecision, Runtime
from ...support.errors import UsageError
from ..ir import Capture


def check_precision(device: Device, compute: ComputePrecision) -> None:
    """Raise UsageError where ``device`` cannot run kernels that pass on values of this precision."""
    runs_wgsl = device.runtime in (Runtime.WGPU, Runtime.BROWSER)
    if compute is ComputePrecision.F16 and runs_wgsl and "shader-f16" not in device.features:
        raise UsageError(
            f"{device.key} has no half floats (WebGPU's feature shader-f16), which --compute f16 needs",
            "tune it with --compute f32",
        )


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, on which device, and for how long.

    Attributes:
        capture: the model.
        device: where trials run.
        tier: WebGPU limits that every program keeps.
        steps: model calls per image; they weigh the stages in an image's time.
        stages: names of the stages to tune; None for all.
        kernels: names, ids or globs of the kernels to tune; None for all.
        trials: search trials per kernel on average, those of earlier sessions included; None for no limit.
        minutes: limit on this session's time; None for no limit.
        seed: of the search and of the inputs.
        reason: free text that is stored with the session.
        cache: the state of the GPU's caches before each timed run. A database holds times of one kind per device.
        transfer: whether to try schedules of related devices before searching. They do not count as ``trials``.
        warm: whether the session starts from what other devices' trials teach: their schedules, and the cost model.
        overlap: whether to prepare the next candidates while one is measured. None means yes unless the device is a
            software adapter: there the work would slow the measured kernel down.
        timeouts: of the worker.
    """

    capture: Capture
    device: Device
    tier: Tier = TIERS["default"]
    steps: int = 20
    stages: Sequence[str] | None = None
    kernels: Sequence[str] | None = None
    trials: int | None = 32
    minutes: float | None = None
    seed: int = 0
    reason: str = ""
    cache: CacheState = CacheState.WARM
    transfer: bool = True
    warm: bool = True
    overlap: bool | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def overlapping(self) -> bool:
        """Whether the next candidates are prepared while one is measured, with the default resolved."""
        return not self.device.software if self.overlap is None else self.overlap

    @property
    def quirks(self) -> Quirks:
        """What the quirks of the device's driver ask for."""
        return quirks_of(self.device)

    def budget_json(self) -> dict[str, Any]:
        """Return the request's limits as JSON values, for the database."""
        return {
            "trials": self.trials,
            "minutes": self.minutes,
            "steps": self.steps,
            "stages": list(self.stages) if self.stages else None,
            "kernels": list(self.kernels) if self.kernels else None,
            "overlap": self.overlapping,
            "warm": self.warm,
        }
