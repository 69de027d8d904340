"""What a schedule rule offers for a kernel: parameters, and a schedule for each choice of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from tvm import IRModule
from tvm.s_tir import Schedule

ANNOTATION = "wgtune.rule"
"""Annotation of the root block: the rule and its parameters, so that a stored trace tells which point it is."""

BOUNDED_GRID = "wgtune.bounded_grid"
"""Attribute of a function whose program should limit a workgroup's place to the grid, for a browser to know bounds."""

Values = Mapping[str, int]
"""A value for each parameter, by its name."""


@dataclass(frozen=True)
class Limits:
    """The limits of a workgroup, and what defaults are chosen for: an unknown GPU, unless more is known.

    Attributes:
        threads: Most invocations of a workgroup.
        shared_bytes: Most bytes of workgroup memory.
        lanes: Threads that keep the GPU busy: between the some hundred lanes of integrated GPUs and the ten thousand of
            large ones, each with a few waves. A kernel with fewer results gets smaller tiles.
        wave: Threads that run in step, of the largest common wave (GCN); a workgroup that is no multiple of it leaves
            lanes idle.
        shares: Whether threads gain by sharing values through workgroup memory. Where they do not, each loads its own.
    """

    threads: int
    shared_bytes: int
    lanes: int = 1024
    wave: int = 64
    shares: bool = True

    @property
    def of_unknown_gpu(self) -> Limits:
        """The same limits of a workgroup, of a GPU of which nothing else is known."""
        return Limits(self.threads, self.shared_bytes)

    @property
    def modest(self) -> Limits:
        """Limits for defaults: a workgroup that uses all that a large GPU allows leaves no room for a second one."""
        return replace(self, threads=min(self.threads, 256), shared_bytes=min(self.shared_bytes, 16384))


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule: its ``candidates``, ascending, and the ``default``, always one of them."""

    name: str
    candidates: tuple[int, ...]
    default: int

    def __post_init__(self) -> None:
        if self.default not in self.candidates:
            object.__setattr__(self, "candidates", tuple(sorted({*self.candidates, self.default})))


@dataclass(frozen=True)
class Quantities:
    """What a schedule does with a GPU, known before it is applied; None where it is not. What search learns from.

    ``threads`` of a workgroup, and ``groups`` of them. A thread computes ``results``, in vectors of ``vector``, and its
    innermost loop writes out ``statements``. ``shared_bytes`` are a workgroup's. Per multiply-add a thread loads
    ``loads`` values, from workgroup memory where operands are copied there first, else from storage; ``staged`` come
    from storage, through a workgroup's copies or past them. ``cost`` is the rule's own estimate of the time on an
    unknown GPU, in no unit.
    """

    threads: float | None = None
    groups: float | None = None
    results: float | None = None
    vector: float | None = None
    statements: float | None = None
    shared_bytes: float | None = None
    loads: float | None = None
    staged: float | None = None
    cost: float | None = None


@dataclass(frozen=True)
class RuleSpace:
    """The schedules that a rule knows for one kernel.

    ``fits`` tells whether values keep the limits. ``build`` schedules: it raises any exception where values do not fit
    the kernel after all. ``sizes`` are the kernel's, such as rows and columns, and ``describe`` tells of values that
    fit what search learns from. ``simpler``: what to try
    where a driver does not run the defaults.
    """

    rule: str
    module: IRModule
    parameters: tuple[Parameter, ...]
    fits: Callable[[Values], bool]
    build: Callable[[Schedule, Values], None]
    sizes: Values = field(default_factory=dict)
    describe: Callable[[Values], Quantities] = lambda values: Quantities()
    simpler: tuple[Values, ...] = ()

    @property
    def defaults(self) -> dict[str, int]:
        """The values for a GPU that nobody has measured."""
        return {parameter.name: parameter.default for parameter in self.parameters}

    def schedule(self, values: Values) -> Schedule:
        """Return the schedule for ``values``."""
        schedule = Schedule(self.module, error_render_level="none", enable_check=False)
        schedule.annotate(schedule.get_sblock("root"), ANNOTATION, self.label(values))
        self.build(schedule, values)
        return schedule

    def label(self, values: Values) -> str:
        """Return the rule and the values as text, such as ``matmul rows=8 columns=8``."""
        return " ".join([self.rule, *(f"{p.name}={values[p.name]}" for p in self.parameters)])

    def values_of(self, label: str) -> dict[str, int] | None:
        """Return the values that a `label` names; None where it is another rule's."""
        rule, *pairs = label.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        if rule != self.rule or set(values) != {p.name for p in self.parameters}:
            return None
        return {name: int(value) for name, value in values.items()}


class ScheduleRule(Protocol):
    """A function that returns the space of a kernel, or None where the rule does not apply to it."""

    def __call__(self, module: IRModule, limits: Limits, /) -> RuleSpace | None:
        """Return the space of the kernel ``main`` of ``module``."""
        ...
