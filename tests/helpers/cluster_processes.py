"""A Dask scheduler, agents and tuners in processes of their own, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

Start = Callable[..., "subprocess.Popen[str]"]
"""Starts ``python -m words``; a name for the files of its output comes first, ``cache`` names a cache of its own."""


@contextmanager
def processes_in(folder: Path) -> Iterator[Start]:
    """Starts processes whose output goes to files in ``folder``, and ends them with all their children."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str, *words: str, cache: str = "") -> subprocess.Popen[str]:
        environment = {**os.environ, "WGTUNE_CACHE": str(folder / (cache or "cache"))}
        with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
            child = subprocess.Popen([sys.executable, "-m", *words], stdout=out, stderr=err, text=True, env=environment)
        started.append(child)
        return child

    yield run
    family = [
        p for child in started if child.poll() is None for p in psutil.Process(child.pid).children(recursive=True)
    ]
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()
    for process in family:
        if process.is_running():
            process.kill()


def start_scheduler(start: Start, folder: Path) -> str:
    """The address of a scheduler that was started for it."""
    file = folder / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    start("scheduler", "distributed.cli.dask_scheduler", *words)
    wait_until(lambda: file.is_file() and file.stat().st_size > 0, "the scheduler has an address")
    address: str = json.loads(file.read_text())["address"]
    return address


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 90) -> None:
    """Waits, and fails where it was in vain."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)
