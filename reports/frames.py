"""Reports as pandas data frames, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from .compiled import CompiledReport
    from .coverage import CoverageReport
    from .latency import LatencyReport


def compiled_frame(report: CompiledReport) -> pandas.DataFrame:
    """Return one row per kernel and chip with the columns of the report's table, indexed by both.

    Shares are of one. ``attrs`` holds whose programs they are, the compiler and the steps.
    """
    import pandas

    frame = pandas.DataFrame(report.table()).set_index(["name", "chip"])
    frame.attrs = {"subject": report.subject, "compiler": report.compiler, "steps": report.steps}
    return frame


def to_frame(report: CoverageReport | LatencyReport) -> pandas.DataFrame:
    """Return one row per kernel with the columns of the report's JSON, indexed by the kernel's name.

    Times are in seconds, shares and spreads of one. ``attrs`` holds the model's name, the device's key and the steps.
    """
    import pandas

    data = report.to_json()
    frame = pandas.DataFrame(data["kernels"]).set_index("name")
    frame.attrs = {"model": report.model.name, "device": report.provenance.device.key, "steps": report.steps}
    return frame
