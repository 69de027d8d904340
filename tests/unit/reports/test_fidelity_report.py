"""What comparing two devices says, from made-up measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_store import CONV, LLVMPIPE, MATMUL, add_demo, ok, session, start

from wgtune.database.queries.shared_schedules import shared_schedules
from wgtune.database.schema.records import TrialKind
from wgtune.database.store import Store
from wgtune.reports.fidelity import fidelity
from wgtune.reports.html.fidelity_page import fidelity_page
from wgtune.support.enums import Runtime

OTHER = replace(LLVMPIPE, key="vulkan:other")
HERE, THERE = (LLVMPIPE.key, Runtime.WGPU), (OTHER.key, Runtime.WGPU)


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def add(store, device, reason, kind, times, kernel=MATMUL, rounds=1):
    """A session on ``device``: ``times`` by trace, in seconds, ``rounds`` times over at changing speed."""
    made = store.begin_session(replace(session(), device=device, reason=reason))
    for number in range(rounds):
        for trace, seconds in times.items():
            middle = seconds * (1 + number % 3)
            end = ok(*(middle * (1 + step / 1000) for step in range(-4, 5)))
            store.add_trial(replace(start(made, kernel, trace, kind)), end)
    return made


def test_rounds_count_before_the_record_and_the_record_before_a_single_check(store):
    add(store, LLVMPIPE, "", TrialKind.SEARCH, {"a": 1e-3, "b": 2e-3})
    add(store, LLVMPIPE, "stability", TrialKind.CHECK, {"a": 4e-3, "b": 5e-3})
    add(store, OTHER, "fidelity", TrialKind.CHECK, {"a": 7e-3, "b": 8e-3})
    assert [one.here[0].latency_s for one in shared_schedules(store, HERE, THERE)] == pytest.approx([1e-3, 2e-3])
    add(store, LLVMPIPE, "stability", TrialKind.CHECK, {"a": 1.1e-3, "b": 2e-3}, rounds=3)
    add(store, LLVMPIPE, "", TrialKind.CHECK, {"a": 9e-3}, rounds=9)  # a tuning session's look at its baseline
    pairs = shared_schedules(store, HERE, THERE)
    assert [len(one.here) for one in pairs] == [3, 3] and [len(one.there) for one in pairs] == [1, 1]
    assert not shared_schedules(store, HERE, THERE, "other flags")


def test_a_repeat_takes_the_place_of_what_was_measured_before(store):
    made = add(store, LLVMPIPE, "", TrialKind.SEARCH, {"a": 1e-3})
    store.add_trial(replace(start(made, MATMUL, "a"), repeat=True), ok(3e-3))
    add(store, OTHER, "fidelity", TrialKind.CHECK, {"a": 1e-3})
    (pair,) = shared_schedules(store, HERE, THERE)
    assert [one.latency_s for one in pair.here] == [3e-3]


def test_order_and_ratio_are_of_rounds(store):
    """Here a is 1 % faster than b and there 1 % slower, in each of seven rounds of changing speed; c stays behind."""
    add(store, LLVMPIPE, "stability", TrialKind.CHECK, {"a": 1e-3, "b": 1.01e-3, "c": 2e-3}, rounds=7)
    add(store, OTHER, "fidelity", TrialKind.CHECK, {"a": 2.02e-3, "b": 2e-3, "c": 4e-3}, rounds=7)
    add(store, LLVMPIPE, "", TrialKind.SEARCH, {"a": 1e-3, "b": 2e-3}, CONV)
    add(store, OTHER, "fidelity", TrialKind.CHECK, {"a": 3e-3, "b": 6e-3}, CONV)
    report = fidelity(store, HERE, THERE)
    overall, rows = report.overall, {row.name: row for row in report.rows}
    assert (overall.kernels, overall.schedules, overall.pairs, overall.best_kept, overall.ranked) == (2, 5, 4, 1, 2)
    matmul = rows["products"]
    assert (matmul.clear, matmul.kept, matmul.tau) == (3, 2, pytest.approx(1 / 3))
    assert matmul.ratio == pytest.approx(2, rel=0.01) and rows["convolutions"].ratio == pytest.approx(3)
    assert rows["convolutions"].tau == 1 and rows["convolutions"].spread == pytest.approx(1)
    assert sorted(report.points)[0] == ("convolutions", pytest.approx(1e-3), pytest.approx(3e-3))
    console = Console(width=200, record=True, force_terminal=False)
    report.render(console)
    text = console.export_text()
    assert "4 differ by more than their noise in both places, and 3 of these keep their order" in text
    assert "2 of 3" in text and "clear pairs kept" in fidelity_page(report)


def test_another_program_there_is_told(store):
    add(store, LLVMPIPE, "", TrialKind.SEARCH, {"a": 1e-3, "b": 2e-3})
    made = store.begin_session(replace(session(), device=OTHER, reason="fidelity"))
    for trace, program in (("a", "f" * 64), ("b", start(made, MATMUL, "b").program_digest)):
        store.add_trial(replace(start(made, MATMUL, trace, TrialKind.CHECK), program_digest=program), ok(1e-3))
    report = fidelity(store, HERE, THERE)
    assert report.other_programs == 1 and any("1 of 2 were another program" in line for line in report.sentences())
