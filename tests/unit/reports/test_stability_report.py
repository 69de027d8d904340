"""What measuring again says of order and spread, from made-up measurements."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_store import CAPTURE, CONV, LLVMPIPE, MATMUL, SOFTMAX, TrialState, add_demo, failed, ok, session, start

from wgtune.database.queries.remeasured import last_comparison, remeasured, top_schedules
from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.store import Store
from wgtune.reports.html.stability_page import stability_page, write_stability_page
from wgtune.reports.stability import check_against, heaviest, stability
from wgtune.support.enums import Runtime
from wgtune.support.errors import UsageError, WgtuneError
from wgtune.support.hashing import digest_of


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def samples(middle, noise=0.01):
    return ok(*(middle * (1 + noise * step / 4) for step in range(-4, 5)))


def add(store, session_id, kernel, trace, end, kind=TrialKind.SEARCH):
    return store.add_trial(replace(start(session_id, kernel, trace, kind)), end)


def compared(store, before, after, kernel=MATMUL, noise=0.01):
    """A session with ``before`` by trace, and one that checks ``after``; the id of the latter."""
    first = store.begin_session(session())
    for trace, seconds in before.items():
        add(store, first, kernel, trace, samples(seconds, noise))
    store.end_session(first, SessionOutcome.COMPLETED)
    second = store.begin_session(replace(session(), reason="stability"))
    for trace, seconds in after.items():
        add(store, second, kernel, trace, samples(seconds, noise), TrialKind.CHECK)
    store.end_session(second, SessionOutcome.COMPLETED)
    return second


def test_the_same_order_is_one_and_the_reverse_minus_one(store):
    before = {"a": 1e-3, "b": 2e-3, "c": 3e-3, "d": 4e-3}
    same = compared(store, before, {trace: 2 * seconds for trace, seconds in before.items()})
    found = stability(store, same).overall
    assert (found.pairs, found.tau, found.clear, found.kept, found.clear_tau) == (6, 1.0, 6, 6, 1.0)
    report = stability(store, same)
    assert report.change == report.largest_change == pytest.approx(1.0)
    assert report.rows[0].before_s == pytest.approx((1e-3, 2e-3, 3e-3, 4e-3))
    assert any("as a quiet machine does" in line for line in report.sentences())


def test_reversed(store):
    after = {"a": 4e-3, "b": 3e-3, "c": 2e-3, "d": 1e-3}
    found = stability(store, compared(store, dict(zip("abcd", [1e-3, 2e-3, 3e-3, 4e-3], strict=True)), after)).overall
    assert found.tau == -1.0 and found.clear_tau == -1.0


def test_what_sampling_cannot_tell_apart_is_tied(store):
    """a and b change places, but neither time were they further apart than times are known."""
    report = stability(
        store,
        compared(store, {"a": 1e-3, "b": 1.01e-3, "c": 2e-3}, {"a": 1.01e-3, "b": 1e-3, "c": 2e-3}, noise=0.1),
    )
    assert report.overall.tau == 1.0 and report.overall.untied_tau == pytest.approx(1 / 3)
    assert (report.overall.clear, report.overall.kept, report.overall.clear_tau) == (2, 2, 1.0)
    assert any("2 of 3 pairs differ by more than their noise" in line for line in report.sentences())


def test_near_ties_that_changed_places_are_not_blamed_on_the_machine(store):
    """Eight schedules within 3 % in another order, and one that is clearly slower and stays so."""
    before = {f"t{i}": (1 + 0.03 * i) * 1e-3 for i in range(8)} | {"slow": 2e-3}
    after = {f"t{i}": (1 + 0.03 * (7 - i)) * 1e-3 for i in range(8)} | {"slow": 2e-3}
    report = stability(store, compared(store, before, after, noise=0.3))
    assert report.overall.tau < 0.9 and report.overall.clear_tau == 1
    text = "\n".join(report.sentences())
    assert "too close together for that" in text and "End other programs" not in text


def test_what_is_nearer_than_sampling_aims_at_is_never_clear(store):
    times = {"a": 1e-3, "b": 1.015e-3, "c": 1.04e-3}
    found = stability(store, compared(store, times, times, noise=1e-4)).overall
    assert (found.pairs, found.clear, found.kept) == (3, 2, 2)


def test_too_few_samples_are_never_clear(store):
    first = store.begin_session(session())
    second = store.begin_session(replace(session(), reason="stability"))
    for trace, seconds in {"a": 1e-3, "b": 9e-3}.items():
        add(store, first, MATMUL, trace, ok(seconds))
        add(store, second, MATMUL, trace, ok(seconds), TrialKind.CHECK)
    report = stability(store, second)
    assert report.overall.tau == 1.0 and report.overall.clear == 0 and report.overall.clear_tau is None
    assert report.rows[0].error is None


def test_kernels_are_never_compared_with_each_other(store):
    first = store.begin_session(session())
    second = store.begin_session(replace(session(), reason="stability"))
    for kernel, times in ((MATMUL, (1e-3, 2e-3)), (CONV, (8e-3, 9e-3))):
        for trace, seconds in zip("ab", times, strict=True):
            add(store, first, kernel, trace, samples(seconds))
            add(store, second, kernel, trace, samples(seconds), TrialKind.CHECK)
    report = stability(store, second)
    assert report.overall.pairs == 2 and report.overall.tau == 1.0
    assert [row.workload_id for row in report.rows] == [CONV.id, MATMUL.id]


def test_the_record_before_the_check_is_the_latest_and_later_ones_do_not_count(store):
    first = store.begin_session(session())
    add(store, first, MATMUL, "a", samples(1e-3))
    store.add_trial(replace(start(first, MATMUL, "a"), repeat=True), samples(2e-3))
    check = store.begin_session(replace(session(), reason="stability"))
    add(store, check, MATMUL, "a", samples(3e-3), TrialKind.CHECK)
    add(store, check, MATMUL, "never measured", samples(3e-3), TrialKind.CHECK)
    add(store, check, MATMUL, "a", failed(TrialState.RUN_TIMEOUT), TrialKind.CHECK)
    add(store, first, MATMUL, "a", samples(9e-3))
    (found,) = remeasured(store, check)
    assert found.before.latency_s == 2e-3 and [one and one.latency_s for one in found.checks] == [3e-3, None]


def test_the_fastest_schedules_once_each(store):
    first = store.begin_session(session())
    for trace, seconds in (("a", 3e-3), ("b", 1e-3), ("b", 1.5e-3), ("c", 2e-3), ("d", 4e-3)):
        add(store, first, MATMUL, trace, samples(seconds))
    add(store, first, MATMUL, "e", failed(TrialState.WRONG_RESULT))
    found = top_schedules(store, LLVMPIPE.key, [MATMUL.id, SOFTMAX.id], Runtime.WGPU, 3)
    assert [record.trace for record in found[MATMUL.id]] == ["b", "c", "a"] and SOFTMAX.id not in found


def test_heaviest_kernels_come_first(store):
    first = store.begin_session(session())
    add(store, first, MATMUL, "a", samples(1e-3))  # 12 launches of CLIP, 200 of the UNet
    add(store, first, CONV, "a", samples(1e-4))
    add(store, first, SOFTMAX, "a", samples(1e-2))
    assert heaviest(store, CAPTURE, LLVMPIPE.key, 20, 2) == [SOFTMAX.id, MATMUL.id]


def rounds(store, times):
    """A session that checked each schedule once per round: ``times`` by trace, seconds by round, None for a failure."""
    made = store.begin_session(replace(session(), reason="stability"))
    for number in range(max(map(len, times.values()))):
        for trace, seconds in times.items():
            if number < len(seconds):
                end = failed(TrialState.RUN_ERROR) if seconds[number] is None else samples(seconds[number])
                add(store, made, MATMUL, trace, end, TrialKind.CHECK)
    store.end_session(made, SessionOutcome.COMPLETED)
    return made


def test_sessions_of_rounds_are_compared_with_records_and_with_each_other(store):
    """The records have b before a; seven rounds show a to be 2.5 % faster, whatever the machine's speed."""
    first = store.begin_session(session())
    for trace, seconds in (("a", 1.06e-3), ("b", 1e-3), ("c", 2e-3)):
        add(store, first, MATMUL, trace, samples(seconds))
    speeds = (1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 1.0)
    times = {trace: [speed * one for speed in speeds] for trace, one in (("a", 1e-3), ("b", 1.025e-3), ("c", 2e-3))}
    made = [rounds(store, times) for _ in range(2)]
    report = stability(store, made[1])
    assert (report.rounds, report.against, report.overall.untied_tau) == (7, None, pytest.approx(1 / 3))
    assert report.halves.tau == report.halves.untied_tau == 1 and report.halves.kept == report.halves.clear
    assert "Compared with the records; measured 7 times" in report.sentences()[0]
    assert "a record comes from one process" in report.sentences()[1]
    again = stability(store, made[1], against=made[0])
    assert again.overall.untied_tau == 1 and again.overall.clear == 3 and again.largest_change == pytest.approx(0)
    assert again.sentences()[0].startswith(f"Compared with session {made[0]}")
    data = json.loads(json.dumps(again.to_json()))
    assert (data["against"], data["rounds"], data["halves"]["tau"]) == (made[0], 7, 1)
    with pytest.raises(UsageError, match="measured none of these schedules again"):
        stability(store, made[1], against=first)
    check_against(store, made[0])
    with pytest.raises(UsageError, match="measured none of these schedules again") as refused:
        check_against(store, first)
    assert f"sessions that measured again: {made[1]}, {made[0]}" in refused.value.hint
    with pytest.raises(UsageError, match="compared with itself"):
        stability(store, made[1], against=made[1])


def test_checks_of_a_schedule_that_is_gone_are_passed_over(store, tmp_path):
    made = compared(store, {"a": 1e-3, "b": 2e-3}, {"a": 1e-3, "b": 2e-3})
    gone = remeasured(store, made)[0].before.trace
    with sqlite3.connect(tmp_path / "x.db") as connection:  # which does not look after foreign keys
        connection.execute("DELETE FROM schedule WHERE digest = ?", (digest_of(gone),))
    connection.close()
    assert [found.before.trace for found in remeasured(store, made)] == ["b"]


def test_the_session_before_another_is_found(store):
    made = [rounds(store, {"a": [1e-3], "b": [1e-3]}) for _ in range(3)]
    assert last_comparison(store, LLVMPIPE.key, CAPTURE, "stability") == made[2]
    assert last_comparison(store, LLVMPIPE.key, CAPTURE, "stability", before=made[2]) == made[1]
    assert last_comparison(store, LLVMPIPE.key, CAPTURE, "stability", before=made[0]) is None


def test_the_last_comparison_is_found_and_others_are_refused(store):
    assert last_comparison(store, LLVMPIPE.key, CAPTURE, "stability") is None
    found = compared(store, {"a": 1e-3}, {"a": 1e-3})
    assert last_comparison(store, LLVMPIPE.key, CAPTURE, "stability") == found
    report = stability(store, found)
    assert report.overall.tau is None and report.overall.pairs == 0
    for wrong in (found - 1, 999):
        with pytest.raises(UsageError, match="measured nothing again"):
            stability(store, wrong)


def test_table_json_and_page(store, tmp_path):
    report = stability(store, compared(store, {"a": 1e-3, "b": 2e-3}, {"a": 1.1e-3, "b": 1e-3}))
    console = Console(width=200, record=True, force_terminal=False)
    report.render(console)
    text = console.export_text()
    assert MATMUL.name in text and "-1.00" in text and "a quiet machine reaches 0.9" in text
    assert "End other programs" in text
    data = json.loads(json.dumps(report.to_json()))
    assert data["overall"]["tau"] == -1 and data["kernels"][0]["agreement"]["clear_tau"] == -1
    assert data["kernels"][0]["after_s"] == [pytest.approx(1.1e-3), pytest.approx(1e-3)] and data["cache"] == "warm"
    page = stability_page(report)
    assert page.count("<circle") == 2 and "http" not in page.replace("http-equiv", "")
    write_stability_page(tmp_path / "s.html", report)
    assert (tmp_path / "s.html").read_text("utf-8") == page
    with pytest.raises(WgtuneError, match="cannot be written"):
        write_stability_page(tmp_path / "no" / "s.html", report)


def test_another_program_than_before_is_told(store):
    session_id = compared(store, {"a": 1e-3, "b": 2e-3}, {"a": 1e-3, "b": 2e-3})
    assert stability(store, session_id).other_programs == 0
    later = store.begin_session(replace(session(), reason="stability"))
    for trace, program in (("a", "f" * 64), ("b", start(later, MATMUL, "b").program_digest)):
        begun = replace(start(later, MATMUL, trace, TrialKind.CHECK), program_digest=program)
        store.add_trial(begun, samples(1e-3))
    report = stability(store, later)
    assert report.other_programs == 1 and report.to_json()["other_programs"] == 1
    assert any("1 of 2 schedules were another program" in line for line in report.sentences())
