"""Display of one session: a live view on a terminal, plain lines elsewhere, and a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...database.schema.records import SessionOutcome
from ...support.formatting import duration
from ...tuner.session.events import (
    Drifted,
    Event,
    SessionEnded,
    SessionPhase,
    SessionStarted,
    Stopping,
    TuneListener,
    TuneSummary,
)
from .model import KernelView, SessionView

_ROWS = 8
"""Number of kernels in the live table: those that take most of an image's time."""

_DRIFTS = 3
"""Number of drifts in a summary: the latest."""

_PLAIN_INTERVAL_S = 10.0


@contextmanager
def session_display(console: Console) -> Iterator[TuneListener]:
    """Yield a listener that shows the session on ``console`` while the context is open, and its summary at the end."""
    if console.is_terminal:
        view = SessionView()
        with Live(
            console=console, get_renderable=lambda: render(view, console.width), refresh_per_second=4, transient=True
        ) as live:
            yield _LiveDisplay(view, live)
        if view.summary is not None:
            console.print(render_summary(view.summary, view.session))
    else:
        yield PlainLines(console)


class _LiveDisplay:
    """Display that updates the view; the live view is redrawn from it several times a second."""

    def __init__(self, view: SessionView, live: Live) -> None:
        self._view = view
        self._live = live

    def on(self, event: Event) -> None:
        self._view.on(event)
        if isinstance(event, SessionEnded):
            self._live.refresh()
        elif isinstance(event, Stopping) and event.at_once:
            self._live.console.show_cursor(True)  # the process ends before the live display could


class PlainLines:
    """Display that writes plain lines when something notable happens, and every ``interval_s`` seconds."""

    def __init__(
        self, console: Console, interval_s: float = _PLAIN_INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._view = SessionView(clock)
        self._printed = clock()

    def on(self, event: Event) -> None:
        """Update the view, and print a line where one is due."""
        self._view.on(event)
        if isinstance(event, SessionStarted):
            self._print(_title(event))
        elif isinstance(event, Drifted):
            self._print(event.message)
        elif isinstance(event, Stopping):
            self._print("left at once" if event.at_once else "stopping; a second Ctrl-C leaves at once")
        elif isinstance(event, SessionEnded):
            for line in summary_lines(event.summary, self._view.session):
                self._print(line)
        elif self._clock() - self._printed >= self._interval_s:
            self._print(progress_line(self._view))

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
        self._console.file.flush()
        self._printed = self._clock()


def progress_line(view: SessionView) -> str:
    """Return the session's progress in one line."""
    parts = [_counts(view), _clocks(view)]
    untuned, now = view.image_s
    if now:
        parts.append(f"image {duration(untuned)} → {duration(now)}, {untuned / now:.2f} ×")
    if view.failures:
        parts.append(_failures(view))
    if view.current is not None:
        parts.append(f"{view.current.plan.name}: {view.doing}")
    return "; ".join(parts)


def render(view: SessionView, width: int) -> RenderableType:
    """Return the live view, ``width`` characters wide."""
    if view.session is None:
        return Text("starting the device's worker …", style="dim")
    untuned, now = view.image_s
    lines: list[RenderableType] = [Text(_title(view.session), style="bold", overflow="ellipsis", no_wrap=True)]
    bar = Table.grid(padding=(0, 1))
    fraction = view.fraction
    bar.add_row(
        ProgressBar(total=1.0, completed=fraction or 0.0, width=max(10, min(40, width - 60)), pulse=fraction is None),
        Text(f"{_counts(view)} · {_clocks(view)}", overflow="ellipsis", no_wrap=True),
    )
    lines.append(bar)
    if now:
        lines.append(
            Text.assemble(
                f"one image: {duration(untuned)} untuned, {duration(now)} now: ",
                (f"{untuned / now:.2f} ×", "green"),
            )
        )
    if view.current is not None:
        lines.append(_current(view.current, view.doing))
    if view.failures:
        lines.append(Text(_failures(view), style="yellow", overflow="ellipsis", no_wrap=True))
    for name, reason in view.skipped.items():
        lines.append(Text(f"left out {name}: {reason}", style="yellow", overflow="ellipsis", no_wrap=True))
    if view.drift:
        lines.append(Text(view.drift[-1], style="yellow", overflow="ellipsis", no_wrap=True))
    lines.append(_table(view, width))
    if view.stopping:
        lines.append(Text("stopping; a second Ctrl-C leaves at once", style="bold yellow"))
    return Group(*lines)


def render_summary(summary: TuneSummary, session: SessionStarted | None) -> RenderableType:
    """Return the session's summary for a terminal."""
    first, *rest = summary_lines(summary, session)
    style = "bold green" if summary.outcome is SessionOutcome.COMPLETED else "bold yellow"
    return Text.from_markup("\n".join([f"[{style}]{escape(first)}[/]", *map(escape, rest)]))


def summary_lines(summary: TuneSummary, session: SessionStarted | None) -> list[str]:
    """Return lines of text that say how the session ended, the most important first."""
    count = sum(summary.trials.values())
    if summary.session_id is None and not summary.interrupted:
        lines = [f"nothing left to do: all {summary.kernels} kernels have had their trials on this device"]
    elif summary.interrupted:
        lines = [f"stopped after {_plural(count, 'trial')}; the same command goes on from here"]
    else:
        lines = [f"{_plural(count, 'trial')} of {_plural(summary.kernels, 'kernel')} in {clock(summary.elapsed_s)}"]
    if summary.speedup is not None:
        lines.append(
            f"one image: {duration(summary.baseline_s)} untuned, {duration(summary.best_s)} tuned: "
            f"{summary.speedup:.2f} ×; {summary.tuned} of {summary.kernels} kernels beat their baseline"
        )
        if session is not None and session.software:
            lines.append(f"{session.device} is a CPU: these times say nothing about a GPU")
    if summary.measured < summary.kernels:
        lines.append(f"{_plural(summary.kernels - summary.measured, 'kernel')} without a verified result yet")
    failed = {state: n for state, n in summary.trials.items() if state.fault}
    if failed:
        lines.append("failed trials: " + ", ".join(f"{n} {state.value}" for state, n in failed.items()))
    for name, reason in summary.skipped.items():
        lines.append(f"left out {name}: {reason}")
    lines += summary.drift[-_DRIFTS:]
    if len(summary.drift) > _DRIFTS:
        lines.append(f"… and {len(summary.drift) - _DRIFTS} earlier drifts: this machine is not quiet")
    if count:
        lines.append(f"time went to: {_spent(summary.seconds)}")
        if meanwhile := _spent(summary.overlapped):
            lines.append(f"and beside it, while the device was measuring: {meanwhile}")
    return lines


def clock(value: float) -> str:
    """Return a duration in seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _spent(seconds: dict[SessionPhase, float]) -> str:
    parts = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{phase.value} {s:.1f} s" for phase, s in parts if s >= 0.05)


def _title(session: SessionStarted) -> str:
    software = ", software" if session.software else ""
    resumed = sum(plan.trials for plan in session.kernels)
    known = f", {resumed} trials known already" if resumed else ""
    return (
        f"tuning {session.model} on {session.device} ({session.tier} tier{software}): "
        f"{_plural(len(session.kernels), 'kernel')}{known}"
    )


def _counts(view: SessionView) -> str:
    done = sum(view.done.values())
    if view.trials_left is None:
        return f"{done} trials"
    return f"{done} of {done + view.trials_left + view.baselines_left} trials"


def _clocks(view: SessionView) -> str:
    eta = view.eta_s
    return f"{clock(view.elapsed_s)} elapsed" + (f", {clock(eta)} left" if eta is not None else "")


def _failures(view: SessionView) -> str:
    return "failed: " + ", ".join(f"{count} {state.value}" for state, count in view.failures.items())


def _current(kernel: KernelView, doing: str) -> Text:
    times = f" · {duration(kernel.baseline_s)} untuned, best {duration(kernel.best_s)}" if kernel.baseline_s else ""
    return Text(f"{kernel.plan.name}: {doing}{times}", overflow="ellipsis", no_wrap=True)


def _table(view: SessionView, width: int) -> Table:
    columns = (("calls", 6), ("untuned", 7), ("best", 7), ("×", 5), ("trials", 6))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    room = width - sum(size + 2 for _, size in columns) - 2
    table.add_column("kernel", no_wrap=True)
    for header, size in columns:
        table.add_column(header, justify="right", no_wrap=True, min_width=size)
    heaviest = sorted(view.kernels.values(), key=lambda kernel: -kernel.time_s)[:_ROWS]
    for kernel in heaviest:
        if kernel.best_s is None:
            continue
        style = "bold" if kernel is view.current else ""
        gain = f"{kernel.speedup:.2f}" if kernel.speedup else "–"
        cells = (kernel.plan.calls, duration(kernel.baseline_s), duration(kernel.best_s), gain, kernel.trials)
        table.add_row(Text(shorten(kernel.plan.name, max(16, room))), *map(str, cells), style=style)
    return table


def shorten(name: str, width: int) -> str:
    """Return ``name`` without its middle: the operators at its start and the id at its end tell kernels apart."""
    if len(name) <= width:
        return name
    tail = min(9, width // 2)
    return f"{name[: width - tail - 1]}…{name[-tail:]}"
