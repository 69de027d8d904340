"""Terminal output: results on standard output; notes, warnings, errors and progress on standard error."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from .errors import WgtuneError

Report = Callable[[str, float], None]
"""Receives the current step and the fraction done, from 0 to 1."""

_PLAIN_INTERVAL_S = 5.0

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing: control characters, line separators, direction marks.

Surrogates are among them: no file can hold them."""


class InertConsole(Console):
    """A console on which no text can move the cursor, change colours or hide what stands beside it.

    Names come from databases and drivers, and a terminal obeys whatever control characters it is sent.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with a � for each such character; what Rich itself sends to the terminal stays."""
        for segment in super().render(renderable, options):
            if segment.control or not UNSEEN.search(segment.text):
                yield segment
            else:
                yield Segment(inert(segment.text), segment.style)


def inert(text: str) -> str:
    """Return ``text`` with a � for each character that a terminal would obey."""
    return UNSEEN.sub("�", text)


def stdout() -> Console:
    """Return the console for results."""
    return InertConsole(highlight=False)


def stderr() -> Console:
    """Return the console for progress, warnings and errors, so that results can be piped."""
    return InertConsole(stderr=True, highlight=False)


def show_error(error: WgtuneError) -> None:
    """Print an error's message and its hint."""
    console = stderr()
    console.print(f"[bold red]wgtune:[/] {escape(error.message)}", soft_wrap=True)
    if error.hint:
        console.print(f"[dim]→[/] {escape(error.hint)}", soft_wrap=True)


def note(text: str) -> None:
    """Print what was done beside the result."""
    stderr().print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning; the command goes on."""
    stderr().print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show a progress bar with an ETA; without a terminal, print a line every few seconds."""
    console = stderr()
    if not console.is_terminal:
        yield _plain_report(title)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def report(what: str, done: float) -> None:
            bar.update(task, completed=done, description=f"{title}: {escape(what)}" if what else title)

        yield report


def _plain_report(title: str) -> Report:
    started = time.monotonic()
    last = started

    def report(what: str, done: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PLAIN_INTERVAL_S:
            return
        last = now
        eta = f", {(now - started) * (1 - done) / done:.0f} s left" if done > 0.01 else ""
        print(f"{title}: {inert(what)} ({done:.0%}{eta})", file=sys.stderr, flush=True)

    return report
