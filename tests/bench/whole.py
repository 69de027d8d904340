"""The sum of a bundle's kernels against the step that they make together, on each adapter that wgpu finds.

The demo model, untuned: what is compared is the whole with its parts, not one schedule with another.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.documents import StageTime
from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.stage_times import measure_stages
from wgtune.cli.demo.model import make_demo_pipeline
from wgtune.devices.discovery.discovery import discover
from wgtune.reports.tables import Column, print_rows
from wgtune.support.console import progress
from wgtune.support.enums import Runtime
from wgtune.support.formatting import coefficient, duration
from wgtune.tuner.session.registration import device_info

ROUNDS = 5


def run(console: Console) -> None:
    """Print for each adapter and stage the time of the whole, the sum of its dispatches, and their ratio."""
    rows: list[tuple[str, StageTime]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, progress("Measuring") as report:
        model = make_demo_pipeline(Path(folder, "model"))
        for number, device in enumerate(one for one in discover().devices if one.runtime is Runtime.WGPU):
            output = Path(folder, f"bundle-{number}")
            build_bundle(BuildRequest(str(model), output, device_info(device), max_steps=5, page=False), None)
            stages = measure_stages(Bundle.open(output), device, ROUNDS, report)
            rows += [(device.key, one) for one in stages]
    columns = [
        Column("device", "device"),
        Column("stage", "stage"),
        Column("run_s", "whole", "right", duration),
        Column("alone_s", "sum", "right", duration),
        Column("ratio", "sum / whole", "right", coefficient),
    ]
    title = "Sum of the dispatches, each by itself, against the whole (demo model, untuned, medians)"
    values = [{"device": key, **asdict(one), "ratio": one.ratio} for key, one in rows]
    print_rows(values, columns, json=False, console=console, title=title)
