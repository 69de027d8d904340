"""Results of merging, releasing, comparing, exporting and importing databases, as text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ...database.exchange.diff import Diff
from ...database.exchange.merge import Merged
from ...database.exchange.release import Manifest
from ...support.formatting import MISSING, duration
from ...tuner.interop.json_export import ExportSummary
from ...tuner.interop.json_import import ImportSummary
from ..tables import Column, print_json, print_rows


def print_merged(done: Merged, *, json: bool, console: Console) -> None:
    """Print what `wgtune.database.exchange.merge.merge` did."""
    if json:
        print_json(done, console)
        return
    new = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in done.added.items() if count) or "nothing"
    lines = [f"merged {len(done.sources)} into {done.into}", f"added      {new}"]
    if done.changed:
        lines.append("completed  " + ", ".join(f"{count} {table}" for table, count in done.changed.items()))
    for table, count in done.conflicts.items():
        lines.append(f"conflicts  {count} of {table}: both sides final and different; one was kept by its content")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def print_release(path: Path, manifest: Manifest, *, json: bool, console: Console) -> None:
    """Print what `wgtune.database.exchange.release.write_release` wrote."""
    if json:
        print_json({"path": path, **vars(manifest)}, console)
        return
    console.print(Text(f"wrote {path}\nSHA-256 {manifest.sha256}"), soft_wrap=True)
    if manifest.stale:
        console.print(Text(f"{manifest.stale} stale records were left out"), soft_wrap=True)
    columns = [
        Column("device", "device", flexible=True),
        Column("runtime", "through", format=lambda runtime: runtime.value),
        Column("tier", "tier"),
        Column("kernels", "kernels", "right"),
        Column("records", "records", "right"),
    ]
    print_rows([vars(one) for one in manifest.covered], columns, json=False, console=console)


def print_diff(found: Diff, *, json: bool, console: Console) -> None:
    """Print what `wgtune.database.exchange.diff.diff` found: kernels that changed, worst first, and the totals."""
    if json:
        print_json(found, console)
        return
    rows = sorted(
        (vars(one) for one in found.kernels if one.change.value != "within noise"),
        key=lambda row: (row["device"], not row["change"].regression, -(row["ratio"] or 0)),
    )
    columns = [
        Column("device", "device", flexible=True),
        Column("runtime", "through", format=lambda runtime: runtime.value, drop=2),
        Column("kernel", "kernel", flexible=True),
        Column("change", "change", format=lambda change: change.value),
        Column("old_s", "old", "right", format=_time),
        Column("new_s", "new", "right", format=_time),
        Column("ratio", "new/old", "right", format=lambda ratio: MISSING if ratio is None else f"{ratio:.2f}"),
        Column("p_value", "p", "right", format=lambda p: MISSING if p is None else f"{p:.2g}", drop=1),
    ]
    if rows:
        print_rows(rows, columns, json=False, console=console)
    totals = ", ".join(f"{count} {change.value}" for change, count in found.totals.items()) or "nothing to compare"
    console.print(Text(totals), soft_wrap=True)


def _time(seconds: float | None) -> str:
    return MISSING if seconds is None else duration(seconds)


_MOST_LISTED = 20
"""Rows of what could not be read or written that are printed: an old file may hold nothing else."""


def print_exported(exported: ExportSummary, *, json: bool, console: Console) -> None:
    """Print what `wgtune.tuner.interop.json_export.export_pair` wrote, and what it left out."""
    if json:
        print_json(exported, console)
        return
    rows = [
        {"kernel": kernel, "schedules": count, "why": why}
        for (kernel, why), count in Counter(exported.skipped).most_common()
    ]
    if rows:
        columns = [
            Column("kernel", "left out", flexible=True),
            Column("schedules", "schedules", "right"),
            Column("why", "why", flexible=True),
        ]
        print_rows(rows[:_MOST_LISTED], columns, json=False, console=console)
        _print_more(len(rows), console)
    text = (
        f"wrote {_counted(exported.records, 'record')} of {_counted(exported.workloads, 'workload')} to "
        f"{exported.folder}: {exported.device} through {exported.runtime.value}"
    )
    console.print(Text(text), soft_wrap=True)


def print_imported(imported: ImportSummary, *, json: bool, console: Console) -> None:
    """Print what `wgtune.tuner.interop.json_import.import_pair` added, and what it could not read."""
    if json:
        print_json(imported, console)
        return
    reasons = Counter((file, why) for file, _, why in imported.opaque)
    first = {(file, why): line for file, line, why in reversed(imported.opaque)}
    rows = [
        {"file": file, "line": first[file, why], "entries": count, "why": why}
        for (file, why), count in reasons.most_common()
    ]
    if rows:
        columns = [
            Column("file", "cannot be read"),
            Column("line", "first line", "right"),
            Column("entries", "entries", "right"),
            Column("why", "why", flexible=True),
        ]
        print_rows(rows[:_MOST_LISTED], columns, json=False, console=console)
        _print_more(len(rows), console)
    added = sum(imported.added.values())
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(imported.added.items()))
    lines = [f"added {_counted(added, 'trial')} of {imported.device}" + (f": {states}" if added else "")]
    if imported.known:
        lines.append(f"{_counted(imported.known, 'record')} were there already")
    if imported.opaque:
        lines.append(
            f"{_counted(len(imported.opaque), 'entry', 'entries')} cannot be read by the installed TVM: kept as they "
            f"are, never offered ({imported.kept} new)"
        )
    if imported.interrupted:
        lines.append("stopped before the end; the same command goes on from here")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _print_more(rows: int, console: Console) -> None:
    if rows > _MOST_LISTED:
        console.print(Text(f"… and {_counted(rows - _MOST_LISTED, 'more row')}: --json lists all", style="dim"))


def _counted(count: int, one: str, many: str = "") -> str:
    """Return ``count`` with the noun in singular or plural."""
    return f"{count} {one if count == 1 else many or one + 's'}"
