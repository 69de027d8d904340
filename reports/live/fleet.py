"""Sessions on several devices on the screen: a line for each on a terminal, plain lines now and then elsewhere."""

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
"""Columns of numbers, and how wide they are."""

_NARROWEST = 10
"""Less room than that says nothing of what a device does; its colour still does."""


class FleetDisplay(FleetListener, Protocol):
    """A listener that keeps what it hears in ``view``."""

    view: FleetView


@contextmanager
def fleet_display(console: Console) -> Iterator[FleetDisplay]:
    """A listener that shows the sessions on ``console`` as long as the context is open."""
    if not console.is_terminal:
        yield PlainFleetLines(console)
        return
    view = FleetView()
    with Live(
        console=console, get_renderable=lambda: render_fleet(view, console.width), refresh_per_second=4, transient=True
    ) as live:
        yield _Screen(view, live)


def fleet_summary_lines(summary: FleetSummary, view: FleetView) -> list[str]:
    """What the sessions came to, device by device."""
    lines = []
    for outcome in summary.outcomes:
        session = view.sessions.get(outcome.device)
        if outcome.summary is not None:
            found = summary_lines(outcome.summary, session.session if session else None)
        else:
            found = [outcome.error or "stopped before its session began"]
            if session is not None and session.done:
                found.append(_until_then(session))
        if outcome.restarts:
            times = "once" if outcome.restarts == 1 else f"{outcome.restarts} times"
            found.append(f"its process died and was started again {times}; no ended trial was lost")
        lines += [f"{outcome.device}: {found[0]}", *(f"  {line}" for line in found[1:])]
    if sum(1 for s in view.sessions.values() if s.session is not None and s.session.software) > 1:
        lines.append("these software adapters shared one processor, so their times disturb each other")
    return lines


def _until_then(session: SessionView) -> str:
    """What a session had come to when it broke off."""
    untuned, now = session.image_s
    trials = sum(session.done.values())
    gain = f"; one image: {duration(untuned)} untuned, {duration(now)} tuned" if now else ""
    return f"kept: {trials} trial{'' if trials == 1 else 's'}{gain}"


class FleetView:
    """Follows the events of all sessions; ``clock`` gives seconds, and is there for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sessions: dict[str, SessionView] = {}
        self.failures: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}
        """Devices that cannot be measured on at the moment, and why."""
        self.awaited = ""
        """What to call a device that has not joined yet."""
        self.join_instructions = ""
        """How a device may join now."""
        self.given_up: set[str] = set()
        """Devices that were given up."""
        self.is_stopping = False

    def on(self, device: str, event: Event) -> None:
        """Takes note of ``event``."""
        if isinstance(event, SessionStarted):
            self.sessions.setdefault(device, SessionView(self._clock))
            self.failures.pop(device, None)
        self.sessions.setdefault(device, SessionView(self._clock)).on(event)

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        """Takes note of a process's end."""
        self.failures[device] = reason
        if not restarting:
            self.given_up.add(device)

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        """Takes note of a device that has left, or come back."""
        if available:
            self.unavailable.pop(device, None)
        else:
            self.unavailable[device] = reason

    def awaiting_device(self, name: str) -> None:
        """Takes note of a device that is waited for."""
        self.awaited = name

    def join_instructions_changed(self, text: str) -> None:
        """Takes note of how a device may join."""
        self.join_instructions = text

    def state(self, device: str) -> str:
        """What the device is doing, in a few words."""
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
    """The live view for a terminal ``width`` columns wide: a line for each device, and more where there is but one."""
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
        lines.append(Text(view.join_instructions, style="dim"))  # wraps rather than lose the end of an address
    if view.is_stopping:
        lines.append(Text("stopping on every device; a second Ctrl-C leaves at once", style="bold yellow"))
    return Group(*lines)


class PlainFleetLines:
    """Writes a line when something notable happens, and every ``interval_s`` seconds one for each device."""

    def __init__(
        self, console: Console, interval_s: float = _PLAIN_INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._printed = clock()
        self.view = FleetView(clock)

    def on(self, device: str, event: Event) -> None:
        """Takes note of ``event``; prints beginnings and ends."""
        self.view.on(device, event)
        if isinstance(event, SessionStarted):
            self._print(f"{device}: session {event.session_id}, {len(event.kernels)} kernels")
        elif isinstance(event, SessionEnded):
            self._print(f"{device}: {event.summary.outcome.value} after {clock(event.summary.elapsed_s)}")

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        """Takes note of a process's end, and prints it."""
        self.view.session_failed(device, reason, restarting=restarting)
        self._print(f"{device}: {reason}; " + ("starting again" if restarting else "given up"))

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        """Takes note of a device that has left, or come back, and prints it."""
        self.view.availability_changed(device, available, reason)
        self._print(f"{device}: " + ("lent again" if available else f"{reason}; waiting for it"))

    def awaiting_device(self, name: str) -> None:
        """Takes note of a device that is waited for."""
        self.view.awaiting_device(name)

    def join_instructions_changed(self, text: str) -> None:
        """Takes note of how a device may join, and prints it when it has changed."""
        if text != self.view.join_instructions:
            self.view.join_instructions_changed(text)
            self._print(text)

    def stopping(self, at_once: bool) -> None:
        """Prints that the end is near."""
        self._print("left at once" if at_once else "stopping on every device; a second Ctrl-C leaves at once")

    def tick(self) -> None:
        """Prints what is due."""
        if self._clock() - self._printed < self._interval_s:
            return
        for name, session in self.view.sessions.items():
            if session.session is not None and session.summary is None and name not in self.view.given_up:
                self._print(f"{name}: {progress_line(session)}")
        self._printed = self._clock()

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
        self._console.file.flush()


class _Screen:
    """Feeds the view that the live display draws at its own pace."""

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
            self._live.console.show_cursor(True)  # nobody else will

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
