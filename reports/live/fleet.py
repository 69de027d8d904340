"""Display of sessions on several devices: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...support.formatting import duration
from ...tuner.fleet.listener import FleetListener, FleetSummary
from ...tuner.session.events import Event, SessionEnded, SessionStarted
from .model import SessionView
from .session import clock, progress_line, render, shorten, summary_lines

_PLAIN_INTERVAL_S = 15.0

_NUMBERS = (("trials", 7), ("failed", 6), ("left", 5), ("untuned", 7), ("now", 7), ("×", 4))
"""Columns of numbers: header, and width in characters."""

_NARROWEST = 10
"""Narrowest width, in characters, in which the column "doing" is shown."""


class FleetDisplay(FleetListener, Protocol):
    """Fleet listener that keeps the state of all sessions in ``view``."""

    view: FleetView


@contextmanager
def fleet_display(console: Console) -> Iterator[FleetDisplay]:
    """Yield a listener that shows the sessions on ``console`` while the context is open."""
    if not console.is_terminal:
        yield PlainFleetLines(console)
        return
    view = FleetView()
    with Live(
        console=console, get_renderable=lambda: render_fleet(view, console.width), refresh_per_second=4, transient=True
    ) as live:
        yield _LiveDisplay(view, live)


def fleet_summary_lines(summary: FleetSummary, view: FleetView) -> list[str]:
    """Return lines of text that say how each device's session ended."""
    lines = []
    for outcome in summary.outcomes:
        session = view.sessions.get(outcome.device)
        if outcome.summary is not None:
            found = summary_lines(outcome.summary, session.session if session else None)
        else:
            found = [outcome.error or "stopped before its session began"]
            if session is not None and session.done:
                found.append(_results_kept(session))
        if outcome.restarts:
            times = "once" if outcome.restarts == 1 else f"{outcome.restarts} times"
            found.append(f"its process died and was started again {times}; no ended trial was lost")
        lines += [f"{outcome.device}: {found[0]}", *(f"  {line}" for line in found[1:])]
    if sum(1 for s in view.sessions.values() if s.session is not None and s.session.software) > 1:
        lines.append("these software adapters shared one processor, so their times disturb each other")
    return lines


def _results_kept(session: SessionView) -> str:
    """Return how many trials, and what gain, a session had reached when it broke off."""
    untuned, now = session.image_s
    trials = sum(session.done.values())
    gain = f"; one image: {duration(untuned)} untuned, {duration(now)} tuned" if now else ""
    return f"kept: {trials} trial{'' if trials == 1 else 's'}{gain}"


class FleetView:
    """State of all sessions, put together from what a fleet reports.

    Attributes:
        sessions: Each session's state, by device.
        failures: Why a session's process ended early last, by device; cleared when its next session starts.
        unavailable: Why a device cannot measure now, by device.
        awaited: Name for a device that must still join; "" where none must.
        join_instructions: How another device can join.
        given_up: Devices whose session is not started again.
        is_stopping: Whether the user asked to stop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without sessions. ``clock`` returns seconds; tests replace it."""
        self._clock = clock
        self.sessions: dict[str, SessionView] = {}
        self.failures: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}
        self.awaited = ""
        self.join_instructions = ""
        self.given_up: set[str] = set()
        self.is_stopping = False

    def on(self, device: str, event: Event) -> None:
        """Update the session of ``device``, as `FleetListener.on`."""
        if isinstance(event, SessionStarted):
            self.sessions.setdefault(device, SessionView(self._clock))
            self.failures.pop(device, None)
        self.sessions.setdefault(device, SessionView(self._clock)).on(event)

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        """Update ``failures`` and ``given_up``, as `FleetListener.session_failed`."""
        self.failures[device] = reason
        if not restarting:
            self.given_up.add(device)

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        """Update ``unavailable``, as `FleetListener.availability_changed`."""
        if available:
            self.unavailable.pop(device, None)
        else:
            self.unavailable[device] = reason

    def awaiting_device(self, name: str) -> None:
        """Update ``awaited``, as `FleetListener.awaiting_device`."""
        self.awaited = name

    def join_instructions_changed(self, text: str) -> None:
        """Update ``join_instructions``, as `FleetListener.join_instructions_changed`."""
        self.join_instructions = text

    def state(self, device: str) -> str:
        """Return what the device is doing, in a few words."""
        session = self.sessions.get(device)
        if device in self.given_up:
            return f"given up: {self.failures[device].splitlines()[0]}"
        if session is not None and session.summary is not None:
            return session.summary.outcome.value
        if device in self.unavailable:
            return f"gone: {self.unavailable[device]}; waiting for it"
        if device in self.failures:
            return f"starting again: {self.failures[device].splitlines()[0]}"
        if device == self.awaited:
            return "waiting for a page to be opened"
        if session is None or session.session is None:
            return "starting"
        if session.current is None:
            return "begun"
        return f"{session.current.plan.name}: {session.doing}"


def render_fleet(view: FleetView, width: int) -> RenderableType:
    """Return the live table, ``width`` characters wide, with a line per device; one device alone gets its kernels."""
    names = list(
        dict.fromkeys([*view.sessions, *view.failures, *view.unavailable, *([view.awaited] if view.awaited else [])])
    )
    if not names:
        return Text("starting a session on each device …", style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    longest = min(max(map(len, names)), 28)
    table.add_column("device", no_wrap=True, min_width=longest)
    for header, size in _NUMBERS:
        table.add_column(header, justify="right", no_wrap=True, min_width=size)
    room = width - longest - 2 - sum(size + 2 for _, size in _NUMBERS)
    if room >= _NARROWEST:
        table.add_column("doing", no_wrap=True, max_width=room, overflow="ellipsis")
    for name in names:
        session = view.sessions.get(name)
        style = (
            "red" if name in view.given_up or name in view.unavailable else "yellow" if name in view.failures else ""
        )
        row: list[Text | str] = [Text(shorten(name, longest), style=style)]
        row += _numbers(session) if session is not None else ("",) * len(_NUMBERS)
        if room >= _NARROWEST:
            row.append(Text(view.state(name), style=style))
        table.add_row(*row)
    lines: list[RenderableType] = [table]
    if len(names) == 1 and not (view.unavailable or view.failures or view.awaited or view.is_stopping):
        lines = [render(view.sessions[names[0]], width)]
    if view.join_instructions and not view.is_stopping:
        lines.append(Text(view.join_instructions, style="dim"))  # wraps, so that an address is shown whole
    if view.is_stopping:
        lines.append(Text("stopping on every device; a second Ctrl-C leaves at once", style="bold yellow"))
    return Group(*lines)


class PlainFleetLines:
    """Display that writes a line when something notable happens, and every ``interval_s`` seconds a line per device."""

    def __init__(
        self, console: Console, interval_s: float = _PLAIN_INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._printed = clock()
        self.view = FleetView(clock)

    def on(self, device: str, event: Event) -> None:
        """Print that a session has started or ended."""
        self.view.on(device, event)
        if isinstance(event, SessionStarted):
            self._print(f"{device}: session {event.session_id}, {len(event.kernels)} kernels")
        elif isinstance(event, SessionEnded):
            self._print(f"{device}: {event.summary.outcome.value} after {clock(event.summary.elapsed_s)}")

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        """Print that a session's process ended early."""
        self.view.session_failed(device, reason, restarting=restarting)
        self._print(f"{device}: {reason}; " + ("starting again" if restarting else "given up"))

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        """Print that a device has left or come back."""
        self.view.availability_changed(device, available, reason)
        self._print(f"{device}: " + ("lent again" if available else f"{reason}; waiting for it"))

    def awaiting_device(self, name: str) -> None:
        """Update ``awaited``, as `FleetListener.awaiting_device`."""
        self.view.awaiting_device(name)

    def join_instructions_changed(self, text: str) -> None:
        """Print how another device can join, where that has changed."""
        if text != self.view.join_instructions:
            self.view.join_instructions_changed(text)
            self._print(text)

    def stopping(self, at_once: bool) -> None:
        """Print that the sessions are stopping."""
        self._print("left at once" if at_once else "stopping on every device; a second Ctrl-C leaves at once")

    def tick(self) -> None:
        """Print a line per device where one is due."""
        if self._clock() - self._printed < self._interval_s:
            return
        for name, session in self.view.sessions.items():
            if session.session is not None and session.summary is None and name not in self.view.given_up:
                self._print(f"{name}: {progress_line(session)}")
        self._printed = self._clock()

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
        self._console.file.flush()


class _LiveDisplay:
    """Display that updates the view; the live table is redrawn from it several times a second."""

    def __init__(self, view: FleetView, live: Live) -> None:
        self.view = view
        self._live = live

    def on(self, device: str, event: Event) -> None:
        self.view.on(device, event)

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        self.view.session_failed(device, reason, restarting=restarting)
        self._live.console.print(Text(f"{device}: {reason}; " + ("starting again" if restarting else "given up")))

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        self.view.availability_changed(device, available, reason)

    def awaiting_device(self, name: str) -> None:
        self.view.awaiting_device(name)

    def join_instructions_changed(self, text: str) -> None:
        self.view.join_instructions_changed(text)

    def stopping(self, at_once: bool) -> None:
        self.view.is_stopping = True
        if at_once:
            self._live.console.show_cursor(True)  # the process ends before the live display could

    def tick(self) -> None:
        pass


def _numbers(session: SessionView) -> tuple[str, ...]:
    done = sum(session.done.values())
    total = "" if session.trials_left is None else f"/{done + session.trials_left + session.baselines_left}"
    untuned, now = session.image_s
    eta = session.eta_s
    return (
        f"{done}{total}",
        str(sum(session.failures.values())),
        clock(eta) if eta is not None and session.summary is None else "–",
        duration(untuned) if now else "–",
        duration(now) if now else "–",
        f"{untuned / now:.2f}" if now else "–",
    )
