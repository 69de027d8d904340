"""Where a bundle's kernels come from, and what its builder measured: `wgtune report bundle`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ...support.formatting import duration
from ...support.serialization import plain
from ..tables import Column, print_left_out, print_rows
from .bundle import stage_sentence

if TYPE_CHECKING:
    from ...build.format.documents import KernelSource, MeasuredDocument, ProvenanceDocument
    from ...build.format.manifest import Manifest, ProgramInfo

_UID = 8
"""Digits of a session's uid that the table shows."""


@dataclass(frozen=True)
class BundleSources:
    """What the documents in a bundle tell; ``provenance`` and ``measured`` are None where the bundle has none.

    ``folder`` is the bundle as the user named it, ``programs`` are those of its programs that are asked for.
    """

    folder: str
    manifest: Manifest
    programs: Sequence[ProgramInfo]
    provenance: ProvenanceDocument | None
    measured: MeasuredDocument | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the documents as they are, beside what the manifest says of the whole."""
        return {
            "report": "bundle",
            "bundle": self.folder,
            "model": plain(self.manifest.model),
            "programs": plain(list(self.programs)),
            "provenance": plain(self.provenance),
            "measured": plain(self.measured),
        }

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each kernel of each program."""
        return [self._row(program, one) for program in self.programs for one in self._kernels(program)]

    def _kernels(self, program: ProgramInfo) -> Sequence[KernelSource]:
        return self.provenance.programs.get(program.plan, ()) if self.provenance else ()

    def _row(self, program: ProgramInfo, one: KernelSource) -> dict[str, Any]:
        assert self.provenance is not None
        trial = one.trial
        session = self.provenance.sessions.get(trial.session) if trial else None
        return {
            "compute": program.compute.value,
            "name": one.name,
            "from": _origin(one, session.device if session else ""),
            "latency": trial.latency_s if trial else None,
            "trial": f"{trial.session[:_UID]} {trial.number}" if trial else None,
            "ended": trial.ended[:10] if trial else None,
            "database": session.database if session else None,
            "program": one.program[:_UID],
            "shaders": len(one.shaders),
        }

    def sentences(self) -> list[str]:
        """Return sentences on the whole: sessions, times of stages, and how a trial is looked up."""
        found = []
        if self.provenance is None:
            found.append("The bundle does not tell where its kernels come from; one that is built now does.")
        elif self.provenance.sessions:
            kernels = [one for program in self.programs for one in self._kernels(program)]
            for uid, session in self.provenance.sessions.items():
                count = sum(one.trial is not None and one.trial.session == uid for one in kernels)
                toolchain = ", ".join(f"{package} {version}" for package, version in sorted(session.toolchain.items()))
                found.append(
                    f"Session {uid}: {count} {'kernel' if count == 1 else 'kernels'}, {session.device}"
                    f"{f' ({session.driver})' if session.driver else ''}, {session.started[:10]}, "
                    f"from {session.database}{f'; {toolchain}' if toolchain else ''}."
                )
            found.append("`wgtune db show SESSION TRIAL --db DATABASE` prints all that is kept of a trial.")
        if self.measured is not None:
            found.append(f"Measured on {self.measured.device} ({self.measured.driver}), {self.measured.measured}:")
            for program in self.programs:
                times = self.measured.programs.get(program.plan)
                which = f"{program.compute.value}: " if len(self.programs) > 1 else ""
                for stage in times.stages if times else ():
                    sentence = which + stage_sentence(stage, times.records_s.get(stage.stage) if times else None)
                    found.append(f"{sentence[0].upper()}{sentence[1:]}.")
        return found

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the table, only its first ``limit`` rows, and the sentences."""
        tuned = self.programs[0].tuned
        heading = f"{self.folder}: {self.manifest.model.name}, built {tuned.created}"
        console.print(Text(f"{heading} for {tuned.device or 'no device'}", style="bold"), soft_wrap=True)
        rows = self.table()
        if rows:
            columns = [one for one in _COLUMNS if one.key != "compute" or len(self.programs) > 1]
            print_rows(rows[:limit], columns, json=False, console=console)
            print_left_out(len(rows), len(rows[:limit]), console)
            console.print()
        for sentence in self.sentences():
            console.print(Text(sentence), soft_wrap=True)


def _origin(one: KernelSource, device: str) -> str:
    """Return in words where a kernel's program comes from."""
    if one.source == "baseline":
        return "baseline, never measured"
    if one.source == "record":
        return "baseline, measured" if one.trial and one.trial.kind == "baseline" else "record"
    if one.match == "exact":
        return "record of another program"
    return f"borrowed from {device}"


_COLUMNS: Sequence[Column] = [
    Column("compute", "compute"),
    Column("name", "kernel", flexible=True),
    Column("from", "from"),
    Column("latency", "latency there", "right", duration),
    Column("trial", "session, trial"),
    Column("ended", "measured", drop=2),
    Column("database", "database", drop=1, flexible=True),
    Column("program", "program", drop=4),
    Column("shaders", "shaders", "right", drop=3),
]
