"""How the command line speaks: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .errors import WgtuneError

Report = Callable[[str, float], None]
"""Receives what is being done, and how much of the whole is, from 0 to 1."""

_PLAIN_INTERVAL_S = 5.0


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False)


def stderr() -> Console:
    """Where progress, warnings and errors go, so that results can be piped."""
    return Console(stderr=True, highlight=False)


def show_error(error: WgtuneError) -> None:
    """Print what was wrong, and what to do about it, in plain words."""
    console = stderr()
    console.print(f"[bold red]wgtune:[/] {escape(error.message)}", soft_wrap=True)
    if error.hint:
        console.print(f"[dim]→[/] {escape(error.hint)}", soft_wrap=True)


def note(text: str) -> None:
    """Print what was done beside the result."""
    stderr().print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print something that the user should know and that stops nothing."""
    stderr().print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """A progress bar with an ETA on a terminal; off one, a plain line now and then."""
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
        print(f"{title}: {what} ({done:.0%}{eta})", file=sys.stderr, flush=True)

    return report
