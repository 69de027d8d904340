"""What a session looks like on a screen, from scripted events: nothing here tunes."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from rich.console import Console
from session_script import SCRIPT, Clock, started, summary, text_of

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.reports.live.model import SessionView
from wgtune.reports.live.session import (
    PlainLines,
    clock,
    progress_line,
    render,
    render_summary,
    session_display,
    summary_lines,
)
from wgtune.support.enums import TrialState
from wgtune.tuner.session.events import (
    Event,
    KernelExhausted,
    KernelSkipped,
    SessionEnded,
    SessionPhase,
    Stopping,
)


def view_after(events: Iterable[tuple[float, Event]]) -> tuple[SessionView, Clock]:
    ticking = Clock()
    view = SessionView(ticking)
    for wait, event in events:
        ticking.now += wait
        view.on(event)
    return view, ticking


def test_the_view_follows_the_events():
    view, _ = view_after(SCRIPT)
    assert view.done == {TrialKind.BASELINE: 1, TrialKind.SEARCH: 2}
    assert view.baselines_left == 0 and view.trials_left == 18
    assert view.image_s == (pytest.approx(0.108), pytest.approx(0.054))
    assert view.failures == {TrialState.WRONG_RESULT: 1}
    assert view.current is not None and view.current.plan.id == "a" and view.current.trials == 2
    assert view.elapsed_s == 7.0
    assert view.eta_s == pytest.approx(18 * 2.0)  # two search trials took 4 s, search between them included
    assert view.fraction == pytest.approx(3 / 21)


def test_minutes_bound_the_time_left():
    view, _ = view_after([(0.0, started(minutes=0.5)), *SCRIPT[1:]])
    assert view.eta_s == pytest.approx(30 - 6)
    unlimited, _ = view_after([(0.0, started(trials_left=None))])
    assert unlimited.eta_s is None and unlimited.fraction is None


@pytest.mark.parametrize("width", [80, 160])
def test_the_screen_fits_its_width_and_says_what_matters(width):
    view, _ = view_after([*SCRIPT, (0.0, Stopping())])
    shown = text_of(render(view, width), width)
    assert max(map(len, shown.splitlines())) <= width
    for words in (
        "sd-v1-5 on vulkan:llvmpipe",
        "software",
        "3 of 21 trials",
        "0:07 elapsed",
        "0:36 left",
        "108 ms untuned, 54.0 ms now",
        "2.00",
        "1 wrong_result",
        "10.0 ms",
        "5.00 ms",
        "1f3a9c2e",
        "softmax_614b97c5",
        "a second Ctrl-C leaves at once",
    ):
        assert words in shown, words


def test_before_the_session_begins_the_screen_says_so():
    assert "worker" in text_of(render(SessionView(), 80), 80)


def test_plain_lines_come_now_and_then_without_control_sequences():
    ticking = Clock()
    stream = io.StringIO()
    lines = PlainLines(Console(file=stream, width=80), interval_s=4.0, clock=ticking)
    for wait, event in [*SCRIPT, (0.0, KernelExhausted("a", 18)), (0.0, Stopping()), (0.0, SessionEnded(summary()))]:
        ticking.now += wait
        lines.on(event)
    printed = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert printed[0].startswith("tuning sd-v1-5 on vulkan:llvmpipe")
    assert sum("elapsed" in line for line in printed) == 1  # 7 s of trials, a line every 4 s
    assert "stopping" in stream.getvalue() and printed[-1].startswith("time went to")


def test_not_a_terminal_means_plain_lines():
    with session_display(Console(file=io.StringIO())) as listener:
        assert isinstance(listener, PlainLines)


def test_a_terminal_gets_a_live_view_and_keeps_the_summary():
    stream = io.StringIO()
    with session_display(Console(file=stream, width=100, force_terminal=True)) as listener:
        for _, event in SCRIPT:
            listener.on(event)
        listener.on(SessionEnded(summary()))
    assert "beat their baseline" in stream.getvalue().rsplit("\x1b[2K", 1)[1]  # after the last line was erased


def test_the_summary_tells_overlapped_work_apart():
    lines = summary_lines(summary(overlapped={SessionPhase.SEARCH: 2.0, SessionPhase.BUILD: 0.01}), started())
    assert lines[-2] == "time went to: compile 3.0 s"
    assert lines[-1] == "and beside it, while the device was measuring: search 2.0 s"


def test_the_summary_says_what_came_of_it():
    lines = summary_lines(summary(), started())
    assert lines[0] == "3 trials of 2 kernels in 1:01"
    assert "108 ms untuned, 54.0 ms tuned: 2.00 ×; 1 of 2 kernels beat their baseline" in lines[1]
    assert "says nothing" in lines[2] or "say nothing" in lines[2]
    assert "failed trials: 1 wrong_result" in lines
    assert lines[-1] == "time went to: compile 3.0 s"


def test_the_summary_of_a_stopped_an_empty_and_an_incomplete_session():
    stopped = summary_lines(summary(outcome=SessionOutcome.INTERRUPTED), None)
    assert stopped[0] == "stopped after 3 trials; the same command goes on from here"
    assert summary_lines(summary(session_id=None, trials={}), None)[0].startswith("nothing left to do")
    incomplete = summary_lines(summary(measured=1, skipped={"x": "no reference"}), None)
    assert "1 kernel without a verified result yet" in incomplete and "left out x: no reference" in incomplete


def test_a_name_cannot_style_the_screen():
    shown = text_of(render_summary(summary(skipped={"[red]x": "[/bold]"}), None), 80)
    assert "left out [red]x: [/bold]" in shown


def test_skipped_kernels_stay_visible():
    view, _ = view_after([*SCRIPT, (0.0, KernelSkipped("b", "softmax_614b97c5", "no finite reference"))])
    assert "left out softmax_614b97c5: no finite reference" in text_of(render(view, 100), 100)


def test_the_summary_travels_as_json():
    import json

    data = json.loads(json.dumps(summary().to_json()))
    assert data["outcome"] == "completed" and data["trials"] == {"ok": 2, "wrong_result": 1} and data["speedup"] == 2.0


def test_durations():
    assert (clock(0.4), clock(61), clock(3723)) == ("0:00", "1:01", "1:02:03")


def test_one_line_says_it_all():
    view, _ = view_after(SCRIPT)
    line = progress_line(view)
    assert line.startswith(
        "3 of 21 trials; 0:07 elapsed, 0:36 left; image 108 ms → 54.0 ms, 2.00 ×; failed: 1 wrong_result"
    )
