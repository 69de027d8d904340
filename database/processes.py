"""Whether the process that opened a session still lives."""

from __future__ import annotations

from datetime import datetime

import psutil

CLOCK_SLACK_S = 2.0
"""A start time is the boot time, kept to the second, plus ticks; and clocks are corrected now and then."""


def is_alive(pid: int, since: datetime) -> bool:
    """Whether process ``pid`` of this machine is the one that was running at the moment ``since``.

    Process ids are used again, within minutes in a container: one that started after ``since`` is another process.
    """
    try:
        process = psutil.Process(pid)
        return bool(
            process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since.timestamp() + CLOCK_SLACK_S
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
