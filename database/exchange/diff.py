"""Comparison of two databases: each kernel on each device, by the samples of its best record."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import select

from ...support.enums import Runtime, TrialState
from ..schema.records import Record
from ..schema.rows import check_whole, device, trial, workload
from ..sql_reader import SqlReader, is_stale

LEAST_EFFECT = 0.03
"""Share by which medians must differ before a kernel counts as faster or slower."""

ALPHA = 0.01
"""Significance level: the share of equal kernels that may differ by chance, before the least effect is tested."""


class Change(str, Enum):
    """The change of a kernel on a device."""

    COVERED = "covered"
    """Only the new database has a verified record."""
    LOST = "lost"
    """Only the old one has, and the new one does not say why."""
    STALE = "stale"
    """The new one's records are all known not to apply under the installed TVM."""
    UNVERIFIED = "unverified"
    """The new one has only unverified times."""
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "within noise"

    @property
    def regression(self) -> bool:
        """Whether a release pipeline should stop."""
        return self in (Change.LOST, Change.STALE, Change.UNVERIFIED, Change.SLOWER)


@dataclass(frozen=True)
class KernelDiff:
    """One kernel on one device, in the old and the new database.

    ``old_s`` and ``new_s`` are medians in seconds, None without a verified record; ``ratio`` is new over old.
    ``p_value`` tests whether the two records' samples come from one distribution.
    """

    device: str
    runtime: Runtime
    workload_id: str
    kernel: str
    change: Change
    old_s: float | None
    new_s: float | None
    ratio: float | None
    p_value: float | None


@dataclass(frozen=True)
class Diff:
    """Every kernel that had or has a verified record, by device, and the totals by change."""

    old: str
    new: str
    kernels: list[KernelDiff]
    totals: dict[Change, int]

    @property
    def regressed(self) -> bool:
        """Whether any kernel was lost, slowed down, or became stale or unverified."""
        return any(change.regression for change in self.totals)


def diff(old: SqlReader, new: SqlReader) -> Diff:
    """Compare two databases or releases. Raises DatabaseError where one cannot be read."""
    before, after = _measured(old), _measured(new)
    found: list[KernelDiff] = []
    for key, runtime in sorted(before.keys() | after.keys()):
        olds, news = before.get((key, runtime), {}), after.get((key, runtime), {})
        ids = sorted(olds.keys() | news.keys())
        old_best, new_best = old.best(key, ids, runtime), new.best(key, ids, runtime)
        names = {one: info.name for one, info in (old.workloads(ids) | new.workloads(ids)).items()}
        for one in ids:
            first, second = old_best.get(one), new_best.get(one)
            if first is None and second is None:
                continue
            change, p_value = _change(first, second, news.get(one, set()))
            found.append(
                KernelDiff(
                    device=key,
                    runtime=runtime,
                    workload_id=one,
                    kernel=names[one],
                    change=change,
                    old_s=None if first is None else first.latency_s,
                    new_s=None if second is None else second.latency_s,
                    ratio=second.latency_s / first.latency_s if first and second and first.latency_s else None,
                    p_value=p_value,
                )
            )
    changes = [one.change for one in found]
    return Diff(old.name, new.name, found, {change: changes.count(change) for change in Change if change in changes})


def compare(old: Sequence[float], new: Sequence[float]) -> tuple[Change, float | None]:
    """Return whether ``new`` samples (seconds) are faster or slower than the ``old``, and the two-sided p-value.

    Mann and Whitney's U (1947), which asks nothing of the distribution, must reject equality at `ALPHA`, and the
    medians must differ by `LEAST_EFFECT`. Fewer than about five samples a side cannot reject it: within noise.
    """
    from scipy.stats import mannwhitneyu

    if not len(old) or not len(new):
        return Change.SAME, None
    p_value = float(mannwhitneyu(old, new, alternative="two-sided").pvalue)
    before, after = statistics.median(old), statistics.median(new)
    if not p_value < ALPHA or abs(after - before) < LEAST_EFFECT * before:
        return Change.SAME, p_value
    return (Change.FASTER if after < before else Change.SLOWER), p_value


def _change(
    old: Record | None, new: Record | None, states: set[tuple[TrialState, bool]]
) -> tuple[Change, float | None]:
    if old is None:
        return Change.COVERED, None
    if new is None:
        if (TrialState.OK, True) in states:
            return Change.STALE, None
        return (Change.UNVERIFIED if (TrialState.UNVERIFIED, False) in states else Change.LOST), None
    if old.samples_s == new.samples_s:
        return Change.SAME, None
    return compare(old.samples_s, new.samples_s)


def _measured(reader: SqlReader) -> dict[tuple[str, Runtime], dict[str, set[tuple[TrialState, bool]]]]:
    """By device and runtime, per workload: states of trials with a time, and whether their schedule is stale."""
    query = (
        select(device.c.key, trial.c.runtime, workload.c.digest, trial.c.state, is_stale())
        .join_from(trial, device, device.c.id == trial.c.device_id)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(trial.c.state.in_([TrialState.OK, TrialState.UNVERIFIED]))
        .distinct()
    )
    found: dict[tuple[str, Runtime], dict[str, set[tuple[TrialState, bool]]]] = {}
    with reader.reading() as connection:
        for row in connection.execute(query):
            check_whole(row)
            key, runtime, digest, state, stale = row
            stale = bool(stale) and state is TrialState.OK
            found.setdefault((key, runtime), {}).setdefault(digest, set()).add((state, stale))
    return found
