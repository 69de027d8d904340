"""Report on programs that were compiled and not run: registers, spills, waves, and the bound on speed that follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.text import Text

from ..devices.offline.chips import Chip
from ..support.formatting import coefficient, digits, percent
from ..support.serialization import plain
from ..support.shader_facts import ShaderFacts
from ..tuner.compiled.facts import Facts
from ..tuner.compiled.kernel_program import KernelProgram
from .tables import Column, print_left_out, print_rows

LEAST_SHARE = 0.45
"""Share of multiply-adds below which one of the heaviest kernels is a problem."""
LOW_SHARE = 0.1
"""Share below which a kernel's hottest loop does next to nothing but fetch and compute addresses."""
HEAVIEST = 20
"""How many kernels count as the heaviest."""
FLOOR = 0.005
"""Least share that the bound reckons with: a kernel without any multiply-add in a loop ends all the same."""

NO_TIMES = "Compiled only: nothing was run, and no time was measured."


class Problem(str, Enum):
    """What is wrong with a program on a chip, the worst first."""

    NO_PROGRAM = "no program"
    NOT_COMPILED = "not compiled"
    SPILLS = "spills"
    LOW_SHARE = "share"
    FEW_WAVES = "waves"


@dataclass(frozen=True)
class OnChip:
    """A kernel's program on one chip: the facts of its shaders, in order, or why there are none.

    ``problems`` has words for each, the worst first.
    """

    chip: Chip
    shaders: tuple[ShaderFacts, ...]
    error: str
    problems: Mapping[Problem, str]

    @property
    def hottest(self) -> ShaderFacts | None:
        """The shader with most multiply-adds in its hottest block."""
        return max(self.shaders, key=lambda facts: facts.hot_multiply_adds or 0, default=None)

    @property
    def share(self) -> float | None:
        """Share of multiply-adds in the hottest block of the hottest shader."""
        return None if self.hottest is None else self.hottest.share

    @property
    def spills(self) -> int:
        """Registers that did not fit, in all shaders."""
        return sum(facts.spills for facts in self.shaders)


@dataclass(frozen=True)
class CompiledRow:
    """One kernel on every chip, in the order of the report's chips."""

    program: KernelProgram
    chips: tuple[OnChip, ...]


@dataclass(frozen=True)
class Bound:
    """What follows for one stage, or for the image, on one chip.

    Of matrix products, convolutions and attention alone: ``share`` is the harmonic mean of their shares of
    multiply-adds, weighted by FLOPs, since times add up; no program can reach a larger part of the GPU's peak.
    ``low`` is the part of their FLOPs in kernels under `LOW_SHARE`, ``unknown`` in kernels without facts.
    ``spilling`` counts kernels of any kind.
    """

    stage: str
    chip: str
    work: float
    share: float | None
    low: float | None
    unknown: float
    spilling: int


@dataclass(frozen=True)
class CompiledReport:
    """Facts of programs on chips. ``subject`` says in words whose programs they are."""

    subject: str
    steps: int
    compiler: str
    problem: str
    chips: tuple[Chip, ...]
    rows: list[CompiledRow]

    @cached_property
    def bounds(self) -> list[Bound]:
        """The bounds of the image and of each stage, chip by chip."""
        stages = list(dict.fromkeys(stage for row in self.rows for stage in row.program.launches))
        return [self._bound(index, stage) for index in range(len(self.chips)) for stage in (None, *stages)]

    def _bound(self, index: int, stage: str | None) -> Bound:
        rows = [row for row in self.rows if stage is None or stage in row.program.launches]
        products = [(row.program.work(stage), row.chips[index].share) for row in rows if row.program.multiplies]
        work = sum(one for one, _ in products)
        known = [(one, max(share, FLOOR)) for one, share in products if share is not None]
        reached = sum(one for one, _ in known)
        return Bound(
            stage=stage or "image",
            chip=self.chips[index].name,
            work=work,
            share=reached / sum(one / share for one, share in known) if reached else None,
            low=sum(one for one, share in known if share < LOW_SHARE) / reached if reached else None,
            unknown=1 - reached / work if work else 0.0,
            spilling=sum(bool(row.chips[index].spills) for row in rows),
        )

    @cached_property
    def lines(self) -> list[tuple[KernelProgram, OnChip, float | None]]:
        """Each kernel on each chip with its part of the chip's bound on time; problems first, the costliest first."""
        cost = {
            (row.program.name, one.chip): row.program.work() / max(one.share, FLOOR)
            for row in self.rows
            for one in row.chips
            if row.program.multiplies and one.share is not None
        }
        total = {chip: sum(value for (_, of), value in cost.items() if of == chip) for chip in self.chips}
        lines = []
        for row in self.rows:
            for one in row.chips:
                own, whole = cost.get((row.program.name, one.chip), 0.0), total[one.chip]
                lines.append((row.program, one, own / whole if whole else None))
        order = {problem: at for at, problem in enumerate(Problem)}

        def rank(line: tuple[KernelProgram, OnChip, float | None]) -> tuple[float, ...]:
            worst = min((order[problem] for problem in line[1].problems), default=len(order))
            return worst, -(line[2] or 0.0), -line[0].work()

        return sorted(lines, key=rank)

    def sentences(self) -> list[str]:
        """Return sentences on the figures as a whole."""
        found = [NO_TIMES, f"By {self.compiler}."]
        if self.problem:
            found.append(f"From the database alone, since here {self.problem}.")
        if not any(row.program.flops for row in self.rows):
            found.append("The kernels' FLOPs are not known, so there is no bound: name the model with --model.")
        for bound in self.bounds:
            if bound.stage == "image" and bound.share is not None:
                found.append(
                    f"{bound.chip}: an image reaches at most {percent(bound.share)} of the peak in products, "
                    f"convolutions and attention; {percent(bound.low)} of their FLOPs are in kernels under "
                    f"{LOW_SHARE}; {_count(bound.spilling, 'kernel')} {'spills' if bound.spilling == 1 else 'spill'}."
                )
        if changed := sum(row.program.changed for row in self.rows):
            found.append(
                f"{_count(changed, 'kernel')} whose schedule makes another program now than was measured: these are "
                "the facts of today's. Measure again with wgtune tune."
            )
        refused = [row for row in self.rows if any(Problem.NOT_COMPILED in one.problems for one in row.chips)]
        if refused:
            error = next(one.error for one in refused[0].chips if one.error)
            found.append(f"{_count(len(refused), 'kernel')} not compiled: {refused[0].program.name}: {error}.")
        failing = [row for row in self.rows if row.program.problem]
        if failing:
            found.append(f"{_count(len(failing), 'kernel')} without a program: {failing[0].program.problem}.")
            if "does not fit tier" in failing[0].program.problem:
                found.append("A wider tier may hold them: --tier desktop.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; shares are of one."""
        data = {
            "report": "compiled",
            "subject": self.subject,
            "steps": self.steps,
            "compiler": self.compiler,
            "problem": self.problem,
            "chips": [{"key": chip.key, "name": chip.name, "architecture": chip.architecture} for chip in self.chips],
            "bounds": self.bounds,
            "kernels": [self._row_json(row) for row in self.rows],
        }
        result: dict[str, Any] = plain(data)
        return result

    def _row_json(self, row: CompiledRow) -> dict[str, Any]:
        program = row.program
        return {
            "name": program.name,
            "workload_id": program.workload_id,
            "program_digest": program.program_digest,
            "stages": program.launches,
            "flops": program.flops,
            "product": program.multiplies,
            "problem": program.problem,
            "changed": program.changed,
            "chips": {
                one.chip.name: {
                    "share": one.share,
                    "spills": one.spills,
                    "problems": list(one.problems.values()),
                    "error": one.error,
                    "shaders": [{"digest": d, **vars(f)} for d, f in zip(program.shaders, one.shaders, strict=False)],
                }
                for one in row.chips
            },
        }

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of the table of kernels."""
        return [_table_row(*line) for line in self.lines]

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the report: kernels (only the first ``limit`` rows), the bounds, sentences."""
        console.print(Text(f"{self.subject}, compiled, {self.steps} steps", style="bold"), soft_wrap=True)
        rows = self.table()
        print_rows(rows[:limit], COLUMNS, json=False, console=console)
        print_left_out(len(rows), len(rows[:limit]), console)
        console.print()
        print_rows([vars(bound) for bound in self.bounds], BOUND_COLUMNS, json=False, console=console)
        console.print()
        for sentence in self.sentences():
            console.print(Text(sentence), soft_wrap=True)


def compiled_report(
    subject: str, steps: int, programs: Sequence[KernelProgram], chips: Sequence[Chip], facts: Facts
) -> CompiledReport:
    """Return the report on ``programs``, whose shaders' facts are ``facts``."""
    products = sorted((one for one in programs if one.multiplies), key=lambda one: -one.work())
    heaviest = {one.name for one in products[:HEAVIEST] if one.work()}
    rows = [
        CompiledRow(one, tuple(_on_chip(one, chip, facts, one.name in heaviest) for chip in chips))
        for one in sorted(programs, key=lambda one: -one.work())
    ]
    return CompiledReport(subject, steps, facts.compiler, facts.problem, tuple(chips), rows)


def _on_chip(program: KernelProgram, chip: Chip, facts: Facts, is_heavy: bool) -> OnChip:
    if program.problem:
        return OnChip(chip, (), program.problem, {Problem.NO_PROGRAM: "no program"})
    errors = [facts.errors[digest, chip.key] for digest in program.shaders if (digest, chip.key) in facts.errors]
    if errors:
        return OnChip(chip, (), errors[0], {Problem.NOT_COMPILED: "not compiled"})
    digests = [*program.shaders]
    shaders = tuple(facts.known[digest, chip.key] for digest in digests if (digest, chip.key) in facts.known)
    if len(shaders) < len(digests):
        return OnChip(chip, (), "the database does not know its facts", {})
    found = OnChip(chip, _with_shared(program, chip, facts, shaders), "", {})
    return OnChip(chip, found.shaders, "", dict(_problems(found, is_heavy)))


def _with_shared(
    program: KernelProgram, chip: Chip, facts: Facts, shaders: tuple[ShaderFacts, ...]
) -> tuple[ShaderFacts, ...]:
    """Return the shaders, with the one that a bundle runs before them where these do no products by themselves."""
    before = facts.known.get((program.before, chip.key))
    own = max((one.hot_multiply_adds or 0 for one in shaders), default=0)
    if not program.multiplies or before is None or own > 2:
        return shaders
    return (before, *shaders)


def _problems(found: OnChip, is_heavy: bool) -> Iterator[tuple[Problem, str]]:
    if found.spills:
        yield Problem.SPILLS, f"spills {_count(found.spills, 'register')}"
    if is_heavy and found.share is not None and found.share < LEAST_SHARE:
        yield Problem.LOW_SHARE, f"share under {LEAST_SHARE}"
    waves = min((facts.waves for facts in found.shaders), default=None)
    if waves is not None and waves <= found.chip.few_waves:
        yield Problem.FEW_WAVES, f"{_count(waves, 'wave')} a SIMD"


def _table_row(program: KernelProgram, one: OnChip, part: float | None) -> dict[str, Any]:
    def most(field: str) -> int | None:
        return max((getattr(facts, field) for facts in one.shaders), default=None)

    def total(field: str) -> int | None:
        return sum(getattr(facts, field) for facts in one.shaders) if one.shaders else None

    return {
        "name": program.name,
        "chip": one.chip.name,
        "problems": ", ".join(one.problems.values()) or (one.error and "unknown"),
        "share": one.share,
        "part": part,
        "gflop": program.flops and program.flops / 1e9,
        "launches": sum(program.launches.values()),
        "shaders": len(one.shaders) or None,
        "vgprs": most("vgprs"),
        "sgprs": most("sgprs") or None,
        "spills": one.spills if one.shaders else None,
        "workgroup": most("workgroup_bytes"),
        "waves": min((facts.waves for facts in one.shaders), default=None),
        "instructions": total("instructions"),
        "code": total("code_bytes"),
        "latency": total("latency_cycles") or None,
        "throughput": total("inverse_throughput_cycles") or None,
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _gflop(value: float | None) -> str:
    return "< 0.001" if value is not None and 0 < value < 0.001 else digits(value)


def _whole(value: Any) -> str:
    return "—" if value is None else f"{value:,}"


COLUMNS: Sequence[Column] = [
    Column("name", "kernel", flexible=True),
    Column("chip", "chip"),
    Column("problems", "problems", flexible=True, style=lambda value: "red" if value else ""),
    Column("share", "multiply-adds", "right", coefficient),
    Column("part", "of bound", "right", percent, drop=2),
    Column("gflop", "GFLOP", "right", _gflop, drop=3),
    Column("launches", "launches", "right", _whole, drop=5),
    Column("shaders", "shaders", "right", _whole, drop=8),
    Column("vgprs", "VGPRs", "right", _whole),
    Column("sgprs", "SGPRs", "right", _whole, drop=12),
    Column("spills", "spills", "right", _whole),
    Column("workgroup", "LDS B", "right", _whole, drop=6),
    Column("waves", "waves", "right", _whole, drop=1),
    Column("instructions", "instructions", "right", _whole, drop=7),
    Column("code", "code B", "right", _whole, drop=9),
    Column("latency", "est. latency", "right", _whole, drop=10),
    Column("throughput", "est. cycles/wave", "right", _whole, drop=11),
]

BOUND_COLUMNS: Sequence[Column] = [
    Column("chip", "chip"),
    Column("stage", "stage"),
    Column("share", "bound (share of peak)", "right", coefficient),
    Column("low", f"FLOPs under {LOW_SHARE}", "right", percent),
    Column("unknown", "FLOPs unknown", "right", percent),
    Column("spilling", "kernels that spill", "right", _whole),
]
