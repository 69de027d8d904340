"""Where the threads of a software adapter run: each on a core of its own, so that its times repeat.

A software adapter splits a dispatch over one thread per core. Left alone, Linux may wake two of them on one core and
go on doing so for as long as the same work is repeated: every sample of a trial then takes twice its time, and nothing
within the trial tells.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

_THREADS = Path("/proc/self/task")
_SHARE = 0.25
"""Of the busiest thread's time: what a thread that computes takes at least, and those that only wait do not."""
_LEAST_S = 1e-3


def give_each_thread_a_core(work: Callable[[], None]) -> int:
    """Runs ``work`` and ties each other thread of this process that computed meanwhile to a core of its own.

    Returns how many threads that were: 0 where the system tells nothing of threads, as all but Linux do. Where there
    are more threads than cores that the process may use, cores are shared evenly.
    """
    before = _seconds()
    work()
    taken = {thread: spent - before.get(thread, 0.0) for thread, spent in _seconds().items()}
    taken.pop(threading.get_native_id(), None)  # the caller, who sets up and waits
    busy = sorted(thread for thread, spent in taken.items() if spent >= max(_LEAST_S, _SHARE * max(taken.values())))
    cores = sorted(os.sched_getaffinity(0)) if busy else []
    for number, thread in enumerate(busy):
        # It may have ended, and a container may forbid it: then things are as they were.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, {cores[number % len(cores)]})
    return len(busy)


def _seconds() -> dict[int, float]:
    """CPU time of each thread of this process, by its id, from the kernel's scheduler statistics (proc(5))."""
    found: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for task in _THREADS.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) * 1e-9
    return found
