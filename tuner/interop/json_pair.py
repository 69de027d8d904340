"""What import and export share: the names of JSONDatabase's two files, and questions to the child that reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .restarting_child import EntryFailed, RestartingChild

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
"""The two files that `tvm.s_tir.meta_schedule.database.JSONDatabase` keeps in a folder."""

CHILD = "wgtune.tuner.interop.json_child"
LIMIT_S = 120.0
"""Seconds for one entry. Real ones take milliseconds, the first of a child a few seconds more."""

Report = Callable[[str, float], None]
"""Receives the name of the present entry, and the share of the work that is done, from 0 to 1."""


def answer(child: RestartingChild, question: dict[str, Any], subject: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the answer of `json_child` to ``question`` about ``subject``, which ``name`` identifies.

    Raises:
        EntryFailed: the child crashed, took too long, or answers that it cannot do it.
    """
    found = child.ask(question, subject, name)
    if "unreadable" in found:
        raise EntryFailed(str(found["unreadable"]))
    return found
