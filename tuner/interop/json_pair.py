"""The pair of files that TVM's JSONDatabase keeps, and asking the child process that understands them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .child_pool import Isolated, Refused

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
"""What `tvm.s_tir.meta_schedule.database.JSONDatabase` calls its two files in a folder."""

CHILD = "wgtune.tuner.interop.json_child"
LIMIT_S = 120.0
"""Seconds for one entry. Real ones take milliseconds, the first of a child a few seconds more."""

Report = Callable[[str, float], None]
"""Receives what is being looked at, and how much of all is done, from 0 to 1."""


def answer(child: Isolated, question: dict[str, Any], subject: dict[str, Any], name: str) -> dict[str, Any]:
    """The child's answer; raises Refused where there is none, or where it says that it cannot."""
    found = child.ask(question, subject, name)
    if "unreadable" in found:
        raise Refused(str(found["unreadable"]))
    return found
