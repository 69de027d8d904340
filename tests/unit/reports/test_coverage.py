"""Coverage: every kernel is improved, at its baseline, failed or never measured, with its share of the image's time."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from report_database import fill
from rich.console import Console
from synthetic_store import (
    CAPTURE,
    CLAMP,
    CONV,
    EMBED,
    LLVMPIPE,
    MATMUL,
    RADEON,
    SOFTMAX,
    add_demo,
    baseline,
    measure,
    ok,
    session,
)

from wgtune.database.queries.replay_status import book
from wgtune.database.schema.records import ReplayRecord, ReplayStatus
from wgtune.database.sql_reader import installed_tvm
from wgtune.database.store import Store
from wgtune.reports.coverage import Coverage, coverage
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import UsageError


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "test.db")) as store:
        fill(store)
        yield store


def rows(report):
    return {row.workload_id: row for row in report.rows}


def test_every_kernel_has_its_status(store):
    found = rows(coverage(store, CAPTURE, LLVMPIPE.key, 20))
    assert {key: row.status for key, row in found.items()} == {
        MATMUL.id: Coverage.IMPROVED,
        CONV.id: Coverage.BASELINE_WON,
        SOFTMAX.id: Coverage.MEASURED,
        EMBED.id: Coverage.FAILED,
        CLAMP.id: Coverage.NEVER_MEASURED,
    }
    assert found[MATMUL.id].trials == {TrialState.OK: 4, TrialState.BUILD_ERROR: 2, TrialState.RUN_TIMEOUT: 1}
    assert (found[MATMUL.id].tried, found[MATMUL.id].failures) == (7, 3)
    assert (found[SOFTMAX.id].tried, found[SOFTMAX.id].failures) == (1, 0)


def test_shares_are_of_launches_times_latency(store):
    found = rows(coverage(store, CAPTURE, LLVMPIPE.key, 10))
    # Launches at 10 steps with guidance: the text stage runs twice, the UNet ten times, the VAE once.
    launches = {MATMUL.id: 2 * 6 + 10 * 10, CONV.id: 10 * 3 + 2, SOFTMAX.id: 10 * 4, EMBED.id: 2, CLAMP.id: 1}
    assert {key: row.launches for key, row in found.items()} == launches
    seconds = {MATMUL.id: 112 * 1e-3, CONV.id: 32 * 8e-3, SOFTMAX.id: 40 * 2e-3}
    whole = sum(seconds.values())
    for key, row in found.items():
        assert row.time_share == (pytest.approx(seconds[key] / whole) if key in seconds else None)
    assert sum(row.work_share for row in found.values()) == pytest.approx(1)
    assert found[MATMUL.id].stages == ("clip", "unet")


def test_what_has_no_time_comes_first_then_the_longest(store):
    report = coverage(store, CAPTURE, LLVMPIPE.key, 20)
    assert [row.workload_id for row in report.rows] == [CLAMP.id, EMBED.id, CONV.id, MATMUL.id, SOFTMAX.id]


def test_json(store):
    data = json.loads(json.dumps(coverage(store, CAPTURE, LLVMPIPE.key, 20).to_json()))
    assert data["report"] == "coverage" and data["steps"] == 20
    assert {status: one["kernels"] for status, one in data["summary"].items() if one["kernels"]} == {
        "improved": 1,
        "baseline won": 1,
        "measured": 1,
        "failed": 1,
        "never measured": 1,
    }
    assert data["trials"] == {"ok": 7, "build_error": 2, "run_timeout": 1, "wrong_result": 1, "abandoned": 1}
    assert data["provenance"]["device"]["software"] is True
    assert [kernel["status"] for kernel in data["kernels"]] == [
        "never measured",
        "failed",
        "baseline won",
        "improved",
        "measured",
    ]


@pytest.mark.parametrize(("width", "terminal"), [(80, True), (160, True), (80, False)])
def test_the_printed_report(store, width, terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    coverage(store, CAPTURE, LLVMPIPE.key, 20).render(console)
    text = console.file.getvalue()
    if terminal:
        assert all(len(line) <= width for line in text.splitlines()[1:])
    for word in (
        "baseline won",
        "improved",
        "measured",
        "never measured",
        "failed",
        "57.1",
        "2 of 5 kernels have no time",
        "software adapter",
    ):
        assert word in text
    assert "wgtune tune --device vulkan:llvmpipe" in text


def test_another_device_or_runtime_is_not_counted(store):
    store.begin_session(session(RADEON))
    for report in (
        coverage(store, CAPTURE, RADEON.key, 20),
        coverage(store, CAPTURE, LLVMPIPE.key, 20, Runtime.BROWSER),
    ):
        assert report.count(Coverage.NEVER_MEASURED) == 5 and report.states == {}
    assert "software" not in " ".join(coverage(store, CAPTURE, RADEON.key, 20).sentences())


def test_a_model_that_is_done(tmp_path):
    with Store.open(str(tmp_path / "done.db")) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        for kernel in (EMBED, SOFTMAX, MATMUL, CONV, CLAMP):
            baseline(store, session_id, kernel, ok(1e-3))
            measure(store, session_id, kernel, ok(2e-3 if kernel is CLAMP else 5e-4), "searched")
        assert coverage(store, CAPTURE, LLVMPIPE.key, 20).sentences() == [
            "All 5 kernels were searched on vulkan:llvmpipe: 4 improved, 1 where the baseline won."
        ]


def test_unknown_names_are_refused(store):
    with pytest.raises(UsageError, match="no model"):
        coverage(store, "unknown", LLVMPIPE.key, 20)
    with pytest.raises(UsageError, match="no device"):
        coverage(store, CAPTURE, "unknown", 20)


def test_what_could_be_borrowed_is_named_and_changes_no_status(store):
    twin = replace(LLVMPIPE, key="gl:llvmpipe", backend="gl")
    number = store.begin_session(session(twin))
    measure(store, number, CLAMP, ok(1e-3), "lent")
    report = coverage(store, CAPTURE, LLVMPIPE.key, 20)
    row = rows(report)[CLAMP.id]
    assert row.status is Coverage.NEVER_MEASURED and row.time_share is None
    assert str(row.lender) == "model: gl:llvmpipe" and rows(report)[MATMUL.id].lender is None
    assert any("1 from model: gl:llvmpipe" in line for line in report.sentences())


def test_a_kernel_whose_records_are_all_stale_is_not_tuned(store):
    def stale(kernel, *traces):
        book(store, [ReplayRecord(kernel.id, one, installed_tvm(), ReplayStatus.STALE, "why") for one in traces])

    stale(MATMUL, "good 1")
    assert rows(coverage(store, CAPTURE, LLVMPIPE.key, 20))[MATMUL.id].status is Coverage.IMPROVED
    stale(MATMUL, "good 0", "good 2")
    assert rows(coverage(store, CAPTURE, LLVMPIPE.key, 20))[MATMUL.id].status is Coverage.MEASURED
    stale(MATMUL, "")
    report = coverage(store, CAPTURE, LLVMPIPE.key, 20)
    found = rows(report)[MATMUL.id]
    assert (found.status, found.time_share, found.trials[TrialState.OK]) == (Coverage.STALE, None, 4)
    assert any("1 of them have records that the installed TVM does not apply" in line for line in report.sentences())
    assert report.to_json()["summary"]["stale"]["kernels"] == 1
