"""What is in a database, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ...database.exchange.admin import DatabaseInfo, Upgrade
from ...database.queries.replay_status import ReleaseReplays
from ...database.schema.records import ModelInfo
from ...support.enums import TrialState
from ...support.formatting import MISSING, size
from ..tables import Column, print_json, print_rows

_COLUMNS = [
    Column("device", "device", flexible=True),
    *(Column(state.value, state.value.replace("_", " "), "right") for state in TrialState),
    Column("total", "total", "right"),
]


_MODELS = [
    Column("name", "model", flexible=True),
    Column("key", "capture"),
    Column("width", "width", "right"),
    Column("height", "height", "right"),
    Column("batch", "batch", "right"),
    Column("guidance", "guidance", format=lambda value: MISSING if value is None else "yes" if value else "no"),
    Column("weights", "weights", format=lambda value: "f32" if value is None else str(value)),
    Column("compute", "compute", format=lambda value: "f32" if value is None else str(value)),
]


def _model_row(model: ModelInfo) -> dict[str, Any]:
    return {**model.options, "name": model.name, "key": model.capture_key[:12]}


def print_database(info: DatabaseInfo, *, json: bool, console: Console) -> None:
    """Print what `admin.info` found: file, schema, models, sessions, trials by device and state."""
    if json:
        print_json(info, console)
        return
    sessions = ", ".join(f"{count} {outcome.value}" for outcome, count in info.sessions.items()) or "none"
    older = "" if info.revision == info.latest else f" (this program has {info.latest}: wgtune db upgrade)"
    lines = [
        f"database   {info.name}",
        *([f"size       {size(info.size_bytes)}"] if info.size_bytes is not None else []),
        f"schema     revision {info.revision or 'none'}{older}",
        f"models     {len(info.models)}",
        f"kernels    {info.workloads}",
        f"sessions   {sessions}",
        *(
            f"silent     session {number} since {last:%Y-%m-%d %H:%M} UTC: the next `wgtune tune` takes it for dead"
            for number, last in info.silent.items()
        ),
        *(
            f"replays    TVM {version}: {', '.join(f'{count} {status.value}' for status, count in counts.items())}"
            for version, counts in info.replays.items()
        ),
        *(_release_line(one) for one in info.releases),
        *(
            f"compiled   by {compiler}: {', '.join(f'{count} for {chip}' for chip, count in chips.items())}"
            for compiler, chips in info.compiled.items()
        ),
    ]
    console.print(Text("\n".join(lines)), soft_wrap=True)
    if info.models:
        console.print()
        print_rows([_model_row(model) for model in info.models], _MODELS, json=False, console=console)
    rows = [
        {
            "device": device,
            **{state.value: count for state, count in states.items()},
            "total": sum(states.values()),
        }
        for device, states in info.trials.items()
    ]
    if info.opaque:
        console.print()
        rows_opaque = [vars(one) for one in info.opaque[:_MOST_OPAQUE]]
        print_rows(rows_opaque, _OPAQUE, json=False, console=console)
        if len(info.opaque) > _MOST_OPAQUE:
            console.print(Text(f"… and {len(info.opaque) - _MOST_OPAQUE} more reasons: --json lists all", style="dim"))
    if rows:
        console.print()
        seen = {key for row in rows for key in row}
        print_rows(rows, [column for column in _COLUMNS if column.key in seen], json=False, console=console)


_OPAQUE = [
    Column("source", "imported from"),
    Column("kind", "cannot be read", format=lambda kind: f"{kind.value}s"),
    Column("entries", "entries", "right"),
    Column("reason", "why", flexible=True),
]
_MOST_OPAQUE = 20


def _release_line(release: ReleaseReplays) -> str:
    counts = [f"{count} {status.value}" for status, count in release.answers.items()]
    unasked = release.schedules - sum(release.answers.values())
    if unasked:
        counts.append(f"{unasked} not asked about yet (wgtune db replay)")
    return f"release    {release.file}: {release.schedules} schedules, {', '.join(counts)}"


def print_upgrade(upgrade: Upgrade, *, json: bool, console: Console) -> None:
    """Print what `wgtune.database.exchange.admin.upgrade` did."""
    if json:
        print_json(upgrade, console)
        return
    if upgrade.before == upgrade.after:
        text = f"{upgrade.name} is up to date: schema revision {upgrade.after}"
    else:
        text = f"{upgrade.name}: schema revision {upgrade.before or 'none'} → {upgrade.after}"
    console.print(Text(text), soft_wrap=True)


_STALE = [
    Column("kernel", "stale kernel", flexible=True),
    Column("schedules", "schedules", "right"),
    Column("whose", "whose"),
    Column("why", "why", flexible=True),
]
_MOST_STALE = 50
"""Rows of stale schedules that are printed: after an upgrade of TVM it may be all."""


def print_replayed(replayed: Mapping[str, Any], *, json: bool, console: Console) -> None:
    """Print what `wgtune.tuner.interop.replay.ReplaySummary.to_json` says."""
    if json:
        print_json(replayed, console)
        return
    groups = Counter((one["kernel"], one["own"], one["why"]) for one in replayed["known_stale"])
    rows = [
        {"kernel": kernel, "schedules": count, "whose": "yours" if own else "a release's", "why": why}
        for (kernel, own, why), count in groups.items()
    ]
    if rows:
        print_rows(rows[:_MOST_STALE], _STALE, json=False, console=console)
        if len(rows) > _MOST_STALE:
            console.print(Text(f"and {len(rows) - _MOST_STALE} more: --json lists all"), soft_wrap=True)
        console.print()
    if not replayed["asked"]:
        text = f"TVM {replayed['tvm']} has been asked about every schedule already; --again asks once more"
        text += f". {len(replayed['known_stale'])} stale"
    else:
        text = f"{replayed['asked']} schedules under TVM {replayed['tvm']}: {replayed['replayable']} replayable"
        text += f", {len(replayed['stale'])} stale"
    if replayed["changed"]:
        text += f"\n{replayed['changed']} now emit another program than was measured: `wgtune tune` measures them anew"
    console.print(Text(text), soft_wrap=True)


def print_problems(problems: Sequence[str], *, json: bool, console: Console) -> None:
    """Print what `wgtune.database.exchange.admin.check` found, one line each, or that all is well."""
    if json:
        print_json(list(problems), console)
    else:
        console.print(Text("\n".join(problems) or "the database is whole"), soft_wrap=True)
