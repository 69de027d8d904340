"""CPU affinity of a driver's threads: one core for each, so that times are reproducible.

Used for drivers that need it (`Quirks.pinned_threads`): software adapters, which split a dispatch over one thread per
core. Linux may schedule two of them on one core for as long as the same work is repeated. Every sample of a trial then
takes twice the time, which cannot be detected within the trial.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

_THREADS = Path("/proc/self/task")
_SHARE = 0.25
"""A thread computes, and does not only wait, if it takes this fraction of the busiest thread's time."""
_MIN_S = 1e-3


def give_each_thread_a_core(work: Callable[[], None]) -> int:
    """Run ``work``, and pin each other thread of this process that computed meanwhile to a core of its own.

    Returns the number of these threads; 0 on systems other than Linux, which do not report threads. Where there are
    more threads than cores that the process may use, cores are shared evenly.
    """
    before = _seconds()
    work()
    taken = {thread: spent - before.get(thread, 0.0) for thread, spent in _seconds().items()}
    taken.pop(threading.get_native_id(), None)  # the calling thread sets up and waits
    busy = sorted(thread for thread, spent in taken.items() if spent >= max(_MIN_S, _SHARE * max(taken.values())))
    cores = sorted(os.sched_getaffinity(0)) if busy else []
    for number, thread in enumerate(busy):
        # The thread may have ended, or a container may forbid pinning: leave it as it is.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, {cores[number % len(cores)]})
    return len(busy)


def _seconds() -> dict[int, float]:
    """Return the CPU seconds of each thread of this process by its id, from the scheduler statistics (proc(5))."""
    found: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for task in _THREADS.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) * 1e-9
    return found
