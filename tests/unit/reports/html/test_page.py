"""The HTML page: one file, nothing fetched, everything escaped, the numbers those of the reports."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_database import fill
from synthetic_store import (
    CAPTURE,
    CONV,
    LLVMPIPE,
    MATMUL,
    RADEON,
    add_demo,
    baseline,
    failed,
    measure,
    ok,
    session,
    workload,
)

from wgtune.database.schema.records import ModelInfo, ModelKernel
from wgtune.database.store import Store
from wgtune.reports.html.page import write_page
from wgtune.reports.html.tuning_curve import tuning_curve
from wgtune.reports.launch_counts import model_launches
from wgtune.support.enums import TrialState
from wgtune.support.errors import WgtuneError

VOID = {"meta", "wbr", "path"}


class Checker(HTMLParser):
    """Collects tags and text, and fails on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data


def read(path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text("utf-8"))
    assert checker.open == []
    return checker


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "test.db")) as store:
        yield store


def test_a_page(store, tmp_path):
    fill(store)
    write_page(tmp_path / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    page = read(tmp_path / "page.html")
    for words in (
        f"demo on {LLVMPIPE.model}",
        "software adapter",
        "≥ 868 ms",
        "1.73 ×",
        "2 of 5",
        "4.00 ×",
        "Mesa 22.3.6",
        "apache-tvm 0.27.0.post1",
        "wgtune tune --device vulkan:llvmpipe",
    ):
        assert words in page.text
    rows = [attributes for tag, attributes in page.tags if tag == "tr"]
    assert len(rows) == 1 + 5
    assert {tag for tag, _ in page.tags} >= {"svg", "path", "table", "button"}
    assert (tmp_path / "page.html").stat().st_size < 100_000


def test_nothing_is_fetched(store, tmp_path):
    fill(store)
    write_page(tmp_path / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    page = read(tmp_path / "page.html")
    assert not any({"src", "href", "srcset", "action"} & attributes.keys() for _, attributes in page.tags)
    assert not re.search(r"url\(|@import|https?://", (tmp_path / "page.html").read_text("utf-8"))


def test_names_cannot_break_out(store, tmp_path):
    evil = '"><script>alert(1)</script>'
    kernel = workload(f"matmul{evil}")
    store.add_workloads([kernel])
    store.add_model(
        ModelInfo(CAPTURE, f"model{evil}", {"width": 1, "height": 1, evil: evil}),
        [ModelKernel(f"unet{evil}", kernel.id, 1, 0)],
    )
    device = replace(LLVMPIPE, key=f"key{evil}", model=f"gpu{evil}")
    session_id = store.begin_session(replace(session(device), driver=evil, toolchain={evil: evil}, tier=evil))
    baseline(store, session_id, kernel, ok(1e-3))
    measure(store, session_id, kernel, ok(1e-4))
    write_page(tmp_path / "page.html", store, CAPTURE, device.key, 20)
    page = read(tmp_path / "page.html")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert evil in page.text


def test_a_gpu_gets_no_warning_and_a_complete_model_no_bound(store, tmp_path):
    fill(store, RADEON)
    write_page(tmp_path / "page.html", store, CAPTURE, RADEON.key, 20)
    assert "software" not in read(tmp_path / "page.html").text


def test_nothing_measured(store, tmp_path):
    add_demo(store)
    store.begin_session(session())
    write_page(tmp_path / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    assert "5 never measured" in read(tmp_path / "page.html").text


def test_many_kernels_share_the_last_bar(store, tmp_path):
    kernels = [workload(f"kernel_{i}") for i in range(30)]
    store.add_workloads(kernels)
    store.add_model(
        ModelInfo(CAPTURE, "big"), [ModelKernel("unet", kernel.id, 1, i) for i, kernel in enumerate(kernels)]
    )
    session_id = store.begin_session(session())
    for i, kernel in enumerate(kernels):
        baseline(store, session_id, kernel, ok(1e-3 * (i + 1)))
    write_page(tmp_path / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    assert "10 other kernels" in read(tmp_path / "page.html").text


def test_a_folder_that_is_not_there(store, tmp_path):
    fill(store)
    with pytest.raises(WgtuneError, match="cannot be written") as caught:
        write_page(tmp_path / "missing" / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    assert caught.value.hint


def test_progress_falls_from_the_first_times_to_the_best(store):
    add_demo(store)
    launches = model_launches(store, CAPTURE, 20)
    session_id = store.begin_session(session())
    assert tuning_curve(store, launches, LLVMPIPE.key) == []
    baseline(store, session_id, MATMUL, ok(4e-3))
    measure(store, session_id, MATMUL, ok(2e-3), "a")
    measure(store, session_id, MATMUL, failed(TrialState.RUN_ERROR), "b")
    measure(store, session_id, MATMUL, ok(3e-3), "slower")
    later = store.begin_session(session())
    baseline(store, later, CONV, ok(8e-3))
    measure(store, later, CONV, ok(7e-3), "c")
    points = tuning_curve(store, launches, LLVMPIPE.key)
    assert [point.trials for point in points] == [0, 2, 6, 6]
    images = [212 * 4e-3 + 62 * 8e-3, 212 * 2e-3 + 62 * 8e-3, 212 * 2e-3 + 62 * 7e-3, 212 * 2e-3 + 62 * 7e-3]
    assert [point.image_s for point in points] == pytest.approx(images)
    assert sorted(point.elapsed_s for point in points) == [point.elapsed_s for point in points]


def test_reports_need_no_compiler_and_no_gpu():
    modules = ("coverage", "latency", "html.page", "selection", "tables")
    modules += ("listings.devices", "listings.kernels", "listings.database")
    code = "".join(f"import wgtune.reports.{module}\n" for module in modules)
    code += (
        "import sys; print([m for m in ('tvm', 'torch', 'wgpu', 'diffusers', 'pandas', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
