"""The time per trial that is neither the kernel running nor the driver compiling, against stock MetaSchedule's.

Both tune the same kernels of the demo model, as many trials each, in the same run: wgtune on the adapter at hand as
WGSL, with every result verified and committed; TVM's `tune_tir` for the CPU with its own builder and LocalRunner,
unverified, in memory. Stock's candidates are CPU code, so its share is what stock spends around a trial: building, with
LLVM as its compiler, is part of it, as emitting WGSL is part of wgtune's. Builds that its builder gives up after half a
minute are no part of it, so that stock is not charged for a compiler that hangs.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wgtune.cli.demo.model import make_demo_pipeline
from wgtune.database.store import Store
from wgtune.devices.discovery.discovery import discover, select
from wgtune.devices.limits import find_tier
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.ir import Capture, Kernel
from wgtune.tuner.session.events import Event, SessionPhase
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

OPERATORS = ("conv2d_add", "matmul_add", "attention_scores", "softmax")
TRIALS = 24
"""Search trials per kernel."""

_BUILD_LIMIT_S = 30.0
"""As LocalBuilder's by default."""


@dataclass(frozen=True)
class Share:
    """Seconds and counts of one tuner's run."""

    name: str
    trials: int
    elapsed_s: float
    excluded_s: float
    parts: dict[str, float]

    @property
    def per_trial_s(self) -> float:
        """Seconds per trial beside running and compiling."""
        return (self.elapsed_s - self.excluded_s) / self.trials


class _Silent:
    def on(self, event: Event) -> None:
        """Takes no note."""


def pick_kernels(capture: Capture) -> list[Kernel]:
    """The heaviest kernel of each operator, by name."""
    return [
        max((k for k in capture.kernels.values() if k.name.startswith(operator)), key=lambda k: k.flops)
        for operator in OPERATORS
    ]


def measure_wgtune(capture: Capture, kernels: list[Kernel], database: Path) -> Share:
    """One session on the best adapter, references computed anew."""
    found = discover()
    request = TuneRequest(
        capture=capture,
        device=select("auto", found.devices, found.problems),
        tier=find_tier("default"),
        kernels=[kernel.id for kernel in kernels],
        trials=TRIALS,
        reason="bench",
    )
    with Store.open(str(database)) as store:
        summary = tune(request, store, _Silent())
    excluded = summary.seconds.get(SessionPhase.RUN, 0.0) + summary.seconds.get(SessionPhase.COMPILE, 0.0)
    parts = {phase.value: seconds for phase, seconds in summary.seconds.items()}
    return Share("wgtune", sum(summary.trials.values()), summary.elapsed_s, excluded, parts)


def measure_stock(kernels: list[Kernel]) -> Share:
    """`tune_tir` on the same TensorIR; its evaluator runs each candidate once, so that next to nothing is excluded."""
    import psutil
    import tvm
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target

    target = Target({"kind": "llvm", "num-cores": psutil.cpu_count(logical=False) or 1})
    config = ms.runner.EvaluatorConfig(number=1, repeat=1, min_repeat_ms=0)

    @derived_object
    class GivenUp(ms.measure_callback.PyMeasureCallback):
        """Takes note of builds that did not end in time."""

        def apply(
            self, task_scheduler: Any, task_id: int, measure_candidates: Any, builder_results: Any, runner_results: Any
        ) -> None:
            given_up.extend(result for result in builder_results if "Timeout" in str(result.error_msg or ""))

    given_up: list[Any] = []
    trials, ran = 0, 0.0
    started = time.perf_counter()
    for kernel in kernels:
        with tempfile.TemporaryDirectory(prefix="stock-") as folder, contextlib.redirect_stdout(io.StringIO()):
            database = ms.tune_tir(
                tvm.IRModule({"main": kernel.func}),
                target,
                folder,
                TRIALS,
                num_trials_per_iter=16,
                builder=ms.builder.LocalBuilder(timeout_sec=_BUILD_LIMIT_S),
                runner=ms.runner.LocalRunner(evaluator_config=config),
                database="memory",
                measure_callbacks=[*ms.measure_callback.MeasureCallback.create("default"), GivenUp()],
            )
        records = database.get_all_tuning_records()
        trials += len(records)
        # A candidate that failed is recorded with an absurdly long time.
        ran += sum(seconds for record in records for seconds in map(float, record.run_secs) if seconds < 1e3)
    given_up_s = _BUILD_LIMIT_S * len(given_up)  # as if one after the other: what it can have cost at most
    return Share("stock tune_tir", trials, time.perf_counter() - started, 2 * ran + given_up_s, {})


def run(console: Console) -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        capture = capture_model(resolve_model(str(make_demo_pipeline(Path(folder) / "model"))))
        kernels = pick_kernels(capture)
        console.print(f"Tuning {', '.join(k.name for k in kernels)}, {TRIALS} trials each …")
        ours = measure_wgtune(capture, kernels, Path(folder) / "bench.db")
        console.print("The same with stock tune_tir and LocalRunner …")
        stock = measure_stock(kernels)
    table = Table(title="Time per trial that is neither running nor the driver compiling")
    for header in ("tuner", "trials", "seconds per trial", "ratio"):
        table.add_column(header, justify="left" if header == "tuner" else "right")
    for share in (ours, stock):
        table.add_row(
            share.name, str(share.trials), f"{share.per_trial_s:.3f}", f"{share.per_trial_s / stock.per_trial_s:.2f}"
        )
    console.print(table)
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(ours.parts.items(), key=lambda i: -i[1]))
    console.print(f"wgtune's {ours.elapsed_s:.1f} s went into {parts}.")
