"""A scripted session: events of two kernels, with the seconds between them, a clock to move, and a summary."""

from __future__ import annotations

import io

from rich.console import Console

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.support.enums import TrialState
from wgtune.tuner.session.events import (
    Event,
    KernelPlan,
    PhaseStarted,
    SessionPhase,
    SessionStarted,
    TrialEnded,
    TrialStarted,
    TuneSummary,
)

LONG = "conv2d_add_multiply_sigmoid_multiply_add_and_many_more_operators_1f3a9c2e"


def started(minutes: float | None = None, trials_left: int | None = 20) -> SessionStarted:
    plans = (
        KernelPlan("a", LONG, ("unet",), 10, 0, None, None),
        KernelPlan("b", "softmax_614b97c5", ("unet",), 2, 3, 0.004, 0.002),
    )
    return SessionStarted(7, "sd-v1-5", "vulkan:llvmpipe", True, "default", plans, trials_left, minutes, 1)


def ended(
    kernel: str,
    kind: TrialKind,
    state: TrialState,
    latency: float | None,
    base: float | None,
    best: float | None,
    left: int,
) -> TrialEnded:
    return TrialEnded(kernel, kind, state, latency, base, best, left, "" if state is TrialState.OK else "why")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


SCRIPT: list[tuple[float, Event]] = [
    (1.0, started()),
    (0.0, PhaseStarted("a", SessionPhase.REFERENCE)),
    (1.0, TrialStarted("a", TrialKind.BASELINE)),
    (1.0, ended("a", TrialKind.BASELINE, TrialState.OK, 0.01, 0.01, 0.01, 20)),
    (0.5, PhaseStarted("a", SessionPhase.SEARCH)),
    (0.5, TrialStarted("a", TrialKind.SEARCH)),
    (2.0, ended("a", TrialKind.SEARCH, TrialState.OK, 0.005, 0.01, 0.005, 19)),
    (0.0, TrialStarted("a", TrialKind.SEARCH)),
    (1.0, ended("a", TrialKind.SEARCH, TrialState.WRONG_RESULT, None, 0.01, 0.005, 18)),
]


def text_of(renderable: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def summary(**changes: object) -> TuneSummary:
    values: dict[str, object] = {
        "session_id": 7,
        "outcome": SessionOutcome.COMPLETED,
        "kernels": 2,
        "tuned": 1,
        "measured": 2,
        "baseline_s": 0.108,
        "best_s": 0.054,
        "trials": {TrialState.OK: 2, TrialState.WRONG_RESULT: 1},
        "seconds": {SessionPhase.COMPILE: 3.0, SessionPhase.COMMIT: 0.01},
        "elapsed_s": 61.0,
        "trials_left": 0,
        "skipped": {},
    }
    return TuneSummary(**{**values, **changes})  # type: ignore[arg-type]
