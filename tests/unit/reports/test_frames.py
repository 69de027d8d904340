"""Reports as data frames: the same rows, ready to compute with."""

from __future__ import annotations

import pytest
from report_database import fill
from synthetic_store import CAPTURE, LLVMPIPE, MATMUL

from wgtune.database.store import Store
from wgtune.reports.coverage import coverage
from wgtune.reports.frames import to_frame
from wgtune.reports.latency import latency


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "test.db")) as store:
        fill(store)
        yield store


def test_latency_as_a_frame(store):
    report = latency(store, CAPTURE, LLVMPIPE.key, 20)
    frame = to_frame(report)
    assert list(frame.index) == [row.name for row in report.rows]
    assert frame.loc[MATMUL.name, "speedup"] == 4.0
    assert frame["image_s"].sum() == pytest.approx(report.image.best_s)
    assert frame.attrs == {"model": "demo", "device": LLVMPIPE.key, "steps": 20}


def test_coverage_as_a_frame(store):
    frame = to_frame(coverage(store, CAPTURE, LLVMPIPE.key, 20))
    assert frame.groupby("status").size().sum() == len(frame) == 5
    assert set(frame["status"]) >= {"improved", "never measured"}
