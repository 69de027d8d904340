"""Several sessions on a screen, from scripted events: nothing here tunes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from session_script import SCRIPT, Clock, summary, text_of

from wgtune.reports.live.fleet import FleetView, PlainFleetLines, fleet_summary_lines, render_fleet
from wgtune.tuner.fleet.listener import DeviceOutcome, FleetSummary
from wgtune.tuner.session.events import SessionEnded


def followed() -> tuple[FleetView, Clock]:
    ticking = Clock()
    view = FleetView(ticking)
    for wait, event in SCRIPT:
        ticking.now += wait
        view.on("vulkan:a", event)
    view.session_failed("vulkan:b", "its session's process was ended by SIGSEGV (signal 11)\nwords", restarting=False)
    view.session_failed("vulkan:[red]c", "its session's process died", restarting=True)
    return view, ticking


@pytest.mark.parametrize("width", [80, 160])
def test_each_device_has_its_line(width: int) -> None:
    view, _ = followed()
    shown = text_of(render_fleet(view, width), width)
    assert max(map(len, shown.splitlines())) <= width
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert set(lines) == {"device", "vulkan:a", "vulkan:b", "vulkan:[red]c"}
    assert "3/21" in lines["vulkan:a"] and "2.00" in lines["vulkan:a"]
    assert "given" in lines["vulkan:b"] and "starting" in lines["vulkan:[red]c"]
    view.availability_changed("vulkan:a", False, "no agent lends it any more")
    assert view.state("vulkan:a") == "gone: no agent lends it any more; waiting for it"
    view.availability_changed("vulkan:a", True)
    view.on("vulkan:a", SessionEnded(summary()))
    assert view.state("vulkan:a") == "completed"


def test_a_device_that_is_waited_for_has_a_line_and_how_to_join_is_shown_whole() -> None:
    view, _ = followed()
    view.awaiting_device("browser")
    address = "http://127.0.0.1:8765/?token=aTokenOfTwentyTwoChars"
    view.join_instructions_changed(f"open {address} in the browser whose GPU is to be tuned")
    shown = text_of(render_fleet(view, 80), 80)
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert "waiting for a page to be opened" in view.state("browser") and "waiting" in lines["browser"]
    assert address in shown and max(map(len, shown.splitlines())) <= 80
    view.awaiting_device("")
    assert "browser" not in {line.split()[0] for line in text_of(render_fleet(view, 80), 80).splitlines()}


def test_two_browsers_of_one_name_are_told_apart_however_narrow_the_terminal() -> None:
    view = FleetView(Clock())
    for name in ("browser:chrome-google-swiftshader", "browser:chrome-google-swiftshader [1]"):
        view.on(name, SCRIPT[0][1])
    first, second = text_of(render_fleet(view, 80), 80).splitlines()[1:3]
    assert first.startswith("browser:chrome-goo…") and "[1]" not in first and "[1]" in second


def test_a_device_alone_is_shown_with_its_kernels_unless_it_is_gone() -> None:
    view = FleetView(Clock())
    for _, event in SCRIPT:
        view.on("browser:a", event)
    assert "softmax_614b97c5" in text_of(render_fleet(view, 100), 100)
    view.availability_changed("browser:a", False, "the page was closed")
    shown = text_of(render_fleet(view, 160), 160)
    assert "softmax_614b97c5" not in shown and "gone: the page was closed; waiting for it" in shown


def test_plain_lines_come_now_and_then() -> None:
    ticking, stream = Clock(), io.StringIO()
    lines = PlainFleetLines(Console(file=stream, width=80), interval_s=5.0, clock=ticking)
    for wait, event in SCRIPT:
        ticking.now += wait
        lines.on("vulkan:a", event)
        lines.tick()
    lines.session_failed("vulkan:b", "died", restarting=True)
    for _ in range(2):
        lines.join_instructions_changed("open http://…")
    lines.availability_changed("vulkan:a", False, "the page was closed")
    lines.stopping(False)
    printed = stream.getvalue().splitlines()
    assert printed[0] == "vulkan:a: session 7, 2 kernels" and "\x1b" not in stream.getvalue()
    assert sum("elapsed" in line for line in printed) == 1  # 7 s of trials, a line every 5 s
    assert printed[-4:] == [
        "vulkan:b: died; starting again",
        "open http://…",
        "vulkan:a: the page was closed; waiting for it",
        "stopping on every device; a second Ctrl-C leaves at once",
    ]


def test_the_summary_goes_device_by_device() -> None:
    view, _ = followed()
    outcomes = (
        DeviceOutcome("vulkan:a", summary(), restarts=1),
        DeviceOutcome("vulkan:b", None, error="it died"),
        DeviceOutcome("vulkan:c", None),
    )
    lines = fleet_summary_lines(FleetSummary(outcomes), view)
    assert lines[0].startswith("vulkan:a: 3 trials of 2 kernels")
    assert any("started again once" in line for line in lines)
    assert "vulkan:b: it died" in lines and lines[-1] == "vulkan:c: stopped before its session began"
    assert [o.device for o in FleetSummary(outcomes).failed] == ["vulkan:b"]


def test_the_summary_of_a_session_that_broke_off_says_what_is_kept() -> None:
    view, _ = followed()
    lines = fleet_summary_lines(FleetSummary((DeviceOutcome("vulkan:a", None, error="it died"),)), view)
    assert lines[0] == "vulkan:a: it died"
    assert lines[1].startswith("  kept: ") and "trial" in lines[1] and "one image: " in lines[1]
