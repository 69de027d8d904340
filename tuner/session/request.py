"""What a tuning session is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...devices.device import Device
from ...devices.limits import Tier
from ...devices.measure.job import Timeouts
from ...support.enums import CacheState
from ..ir import Capture


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, where, and for how long.

    ``stages`` and ``kernels`` (names, ids, globs) narrow the capture; None means all. ``steps`` weighs the stages in
    an image's time. ``trials`` are search trials per kernel on average, earlier sessions' included, ``minutes`` limit
    this run; None means no limit. ``seed`` is of the search and of the inputs, ``reason`` is kept with the session.
    ``cache`` is what timed runs find in the caches; a database holds times of one kind for a device.
    ``transfer`` tries the best schedules of related devices before it searches; they are no part of ``trials``.
    ``overlap`` prepares the next candidates while one is measured; None does so where the device is not the CPU, whose
    own times that would spoil.
    """

    capture: Capture
    device: Device
    tier: Tier
    steps: int = 20
    stages: Sequence[str] | None = None
    kernels: Sequence[str] | None = None
    trials: int | None = 32
    minutes: float | None = None
    seed: int = 0
    reason: str = ""
    cache: CacheState = CacheState.WARM
    transfer: bool = True
    overlap: bool | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def overlapping(self) -> bool:
        """Whether the next candidates are prepared while one is measured."""
        return not self.device.software if self.overlap is None else self.overlap

    def budget_json(self) -> dict[str, Any]:
        """What was asked for, as the database keeps it."""
        return {
            "trials": self.trials,
            "minutes": self.minutes,
            "steps": self.steps,
            "stages": list(self.stages) if self.stages else None,
            "kernels": list(self.kernels) if self.kernels else None,
            "overlap": self.overlapping,
        }
