"""Reports as pandas data frames, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from .coverage import CoverageReport
    from .latency import LatencyReport


def to_frame(report: CoverageReport | LatencyReport) -> pandas.DataFrame:
    """Return one row per kernel with the columns of the report's JSON, indexed by the kernel's name.

    Times are in seconds, shares and spreads of one. ``attrs`` holds the model's name, the device's key and the steps.
    """
    import pandas

    data = report.to_json()
    frame = pandas.DataFrame(data["kernels"]).set_index("name")
    frame.attrs = {"model": report.model.name, "device": report.provenance.device.key, "steps": report.steps}
    return frame
