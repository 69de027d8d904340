"""Whose process ids these are, and whether the process that opened a session still lives."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from functools import cache
from pathlib import Path

import psutil

CLOCK_SLACK_S = 2.0
"""A start time is the boot time, kept to the second, plus ticks; and clocks are corrected now and then."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@cache
def host_name() -> str:
    """This machine's name and, on Linux, which space of process ids this is in: ``lab [1f0c93d2/4026531836]``.

    Containers may share a name, and machines too: one must not take the other's processes for dead, because it does not
    see them. The number of this boot tells machines apart, the namespace's the containers of one.
    """
    try:
        boot = _BOOT.read_text(encoding="ascii").strip()[:8]
        namespace = os.readlink(_NAMESPACE).strip("pid:[]")
    except (OSError, ValueError):
        return platform.node()
    return f"{platform.node()[:200]} [{boot}/{namespace}]"


def host_label(host: str) -> str:
    """What people call the host that `host_name` names."""
    return host.partition(" [")[0]


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
