"""The report on searches: sides, the best known, classes; terminal, JSON, page and command."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_store import CAPTURE, CONV, LLVMPIPE, MATMUL, RADEON, SOFTMAX, add_demo, baseline, measure, ok, session
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.queries.layers import Layers
from wgtune.database.store import Store
from wgtune.reports.html.search_page import search_page
from wgtune.reports.launch_counts import model_launches
from wgtune.reports.search import SearchReport, search_report
from wgtune.reports.selection import select_kernels
from wgtune.support.enums import Runtime
from wgtune.support.errors import UsageError

NAMES = {one.id: one.name for one in (MATMUL, CONV, SOFTMAX)}


def searched(path: Path, times: dict, warm: bool = False) -> Path:
    """Write one session to a database: by kernel the baseline, then the trials, in seconds."""
    with Store.open(str(path)) as opened:
        add_demo(opened)
        made = opened.begin_session(replace(session(), budget={"trials": 8, "warm": True} if warm else {"trials": 8}))
        for kernel, (first, *trials) in times.items():
            baseline(opened, made, kernel, ok(first))
            for number, seconds in enumerate(trials):
                measure(opened, made, kernel, ok(seconds), f"{kernel.name} {warm} {number} {path}")
    return path


def report(path: Path, against: Path | None = None, release: Path | None = None) -> SearchReport:
    with ExitStack() as stack:
        store, other, below = (stack.enter_context(Store.open(str(one or path))) for one in (path, against, release))
        layers = Layers(store, [below] if release else [])
        return search_report(layers, "demo", NAMES, LLVMPIPE, Runtime.WGPU, other if against else None)


def shown(made: SearchReport, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
    made.render(console)
    return console.file.getvalue()


COLD = {MATMUL: (8.0, 8.0, 4.0, 2.0, 1.0), CONV: (6.0, 6.0, 6.0, 3.0, 3.0)}
WARM = {MATMUL: (8.0, 1.0, 1.0), CONV: (6.0, 4.0, 2.0), SOFTMAX: (1.0, 1.0)}


def test_cold_and_warm_are_compared_over_the_kernels_of_both(tmp_path: Path) -> None:
    made = report(searched(tmp_path / "warm.db", WARM, warm=True), searched(tmp_path / "cold.db", COLD))
    assert [(side.name, len(side.searches)) for side in made.sides] == [("cold", 2), ("warm", 3)]
    rows = {(row.name, row.side): row for row in made.classes}
    products, convolutions = rows["products", "cold"], rows["convolutions", "cold"]
    assert (products.median.trials, convolutions.median, convolutions.missed) == (4, (4, True), 1)
    assert [point.speed for point in products.curve] == pytest.approx([1 / 8, 1 / 8, 1 / 4, 1])
    assert rows["all", "warm"].kernels == 3 and rows["norms and softmax", "warm"].median == (0, False)
    found = {one.name: one for one in made.comparisons}
    assert list(found) == ["products", "convolutions", "all"], "softmax was searched on one side alone"
    assert (found["products"].ratio, found["products"].bound) == (pytest.approx(1 / 4), "")
    assert (found["convolutions"].ratio, found["convolutions"].bound) == (pytest.approx(2 / 4), "≤")
    assert found["all"].total_ratio == pytest.approx(3 / 8) and found["all"].first_missed == 1
    text = shown(made)
    assert "warm takes ≤ 0.35 × the trials of cold until 95 % of the best known" in text and "that or less" in text
    assert "≥ 4" in text and "This is a software adapter" in text


def test_which_database_comes_first_does_not_matter(tmp_path: Path) -> None:
    warm, cold = searched(tmp_path / "warm.db", WARM, warm=True), searched(tmp_path / "cold.db", COLD)
    assert report(warm, cold).comparisons == report(cold, warm).comparisons


def test_databases_of_one_kind_are_named_and_the_other_is_first(tmp_path: Path) -> None:
    made = report(searched(tmp_path / "new.db", WARM), searched(tmp_path / "old.db", COLD))
    assert [side.name for side in made.sides] == ["old.db", "new.db"]
    assert made.comparisons[-1].total_ratio == pytest.approx(3 / 8)


def test_two_searches_without_a_common_kernel_are_shown_and_not_compared(tmp_path: Path) -> None:
    warm = searched(tmp_path / "warm.db", {SOFTMAX: (2.0, 1.0)}, warm=True)
    made = report(warm, searched(tmp_path / "cold.db", COLD))
    assert [side.name for side in made.sides] == ["cold", "warm"] and made.comparisons == []
    assert "No kernel was searched both cold and warm" in shown(made) and "cold" in search_page(made)


def test_the_best_known_is_over_releases_too(tmp_path: Path) -> None:
    made = report(searched(tmp_path / "own.db", COLD), release=searched(tmp_path / "release.db", {MATMUL: (8.0, 0.5)}))
    (side,) = made.sides
    assert side.searches[MATMUL.id].best_s == 0.5 and side.searches[MATMUL.id].speed(0) == pytest.approx(1 / 16)
    assert (made.elsewhere, made.unsearched) == (1, 1) and "--no-releases" in shown(made)
    assert side.name == "cold" and made.comparisons == []


def test_what_a_warm_session_adds_to_a_cold_search_is_left_out(tmp_path: Path) -> None:
    path = searched(tmp_path / "x.db", COLD)
    searched(path, {CONV: (6.0, 1.0)}, warm=True)
    made = report(path)
    (side,) = made.sides
    assert side.name == "cold" and side.searches[CONV.id].progress.left_out == 1
    assert side.searches[CONV.id].best_s == 1.0 and "1 trial of sessions that continued a cold search" in shown(made)


def test_json_and_page_have_every_kernel_and_class(tmp_path: Path) -> None:
    made = report(searched(tmp_path / "warm.db", WARM, warm=True), searched(tmp_path / "cold.db", COLD))
    data = json.loads(json.dumps(made.to_json()))
    assert data["report"] == "search" and data["share"] == 0.95 and len(data["kernels"]) == 5
    (conv,) = [one for one in data["kernels"] if one["name"] == CONV.name and one["side"] == "cold"]
    assert conv["steps"] == [{"trials": 0, "best_s": 6.0}, {"trials": 3, "best_s": 3.0}]
    assert conv["needed"] == {"trials": 4, "at_least": True} and conv["class"] == "convolutions"
    assert data["comparisons"][-1]["bound"] == "≤"
    page = search_page(made)
    assert page.count("<path") == len(made.classes) and page.count("stroke-dasharray") == 3
    assert "Trials saved" in page and "class-1" in page and "that or less" in page


def test_a_terminal_draws_the_curve(tmp_path: Path) -> None:
    made = report(searched(tmp_path / "cold.db", COLD))
    (row,) = [row for row in made.table() if row["name"] == MATMUL.name]
    assert (row["curve"] == "▂▂▃█" and made.table()[0]["name"] == CONV.name) or row["needed"].trials == 4
    assert "Trials saved" not in search_page(made) and "▂▂▃█" in shown(made, terminal=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", RADEON.key], "there is no device"),
        (["--kernels", "conv3d*"], "no kernel of demo is called 'conv3d*'"),
        (["--stage", "nose"], "demo has no stage nose"),
        (["--kernels", "clip*"], "holds no search for these kernels"),
        (["--against", "none.db"], "none.db"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], message: str, tmp_path: Path) -> None:
    path = searched(tmp_path / "cold.db", COLD)
    result = CliRunner().invoke(app, ["report", "search", "--no-releases", "--db", str(path), *words])
    assert message in str(result.exception) and result.exception.hint


def test_a_database_with_baselines_alone_says_what_to_type(tmp_path: Path) -> None:
    path = searched(tmp_path / "x.db", {MATMUL: (1.0,)})
    with pytest.raises(UsageError, match="holds no search") as raised:
        report(path)
    assert "wgtune tune --device vulkan:llvmpipe" in raised.value.hint


def test_kernels_are_chosen_by_stage_and_pattern(tmp_path: Path) -> None:
    with Store.open(str(searched(tmp_path / "x.db", COLD))) as store:
        launches = model_launches(store, CAPTURE, 1)
        assert set(select_kernels(launches, ["clip"], ["*add*"]).values()) == {"take_add_1a2b3c4d", MATMUL.name}
        assert select_kernels(launches, None, [CONV.id[:8]]) == {CONV.id: CONV.name}
        assert len(select_kernels(launches)) == 5


def test_the_command_writes_a_page_and_prints_json(tmp_path: Path) -> None:
    warm, cold = searched(tmp_path / "warm.db", WARM, warm=True), searched(tmp_path / "cold.db", COLD)
    words = ["--no-releases", "--db", str(warm), "--against", str(cold), "--html", str(tmp_path / "x.html")]
    result = CliRunner().invoke(app, ["report", "search", *words, "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["comparisons"][-1]["kernels"] == 2
    assert "Best so far against trials" in (tmp_path / "x.html").read_text("utf-8")
