"""The design space of a kernel: MetaSchedule's sketches, with decisions drawn within a workgroup's limits.

MetaSchedule turns a kernel into a few sketches: traces whose sampling instructions (tile sizes, unroll steps, …) are
undecided. It draws decisions without regard to limits; scheduling, 10 to 25 ms a draw, shows that they break one. With
WebGPU's 256 threads and 16 KiB this happens to 19 of 20 draws for a convolution and to nearly all for a matrix product.
A `Sketch` derives from the trace alone, in microseconds, the threads, virtual threads and workgroup memory that
decisions imply, and draws again where they exceed a limit. What it rejects, TVM rejects too; it may accept what TVM
rejects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace
from tvm.sym import Analyzer

from ...database.tvm.traces import trace_values
from ..schedule_rules import Limits
from ..schedule_rules.rule import Quantities
from ..schedule_rules.tiles import Tile, Work, estimated_time
from .features import Features, quantity_features
from .knobs import ChoiceKnob, Decision, KnobSpace, TileKnob

_MAX_VTHREADS = 16
"""Most virtual threads in a thread. Each repeats the code and its registers, on every GPU: more make long WGSL."""

_MAX_UNROLL = 64
"""Most iterations of a loop that a schedule may unroll. MetaSchedule goes to 1024, which makes 100 to 250 KB of WGSL
for every visitor to load and compile, whatever the GPU. Drivers unroll short constant loops themselves."""


_SAMPLING = ("SamplePerfectTile", "SampleCategorical")

_SPATIAL_PARTS, _REDUCTION_PARTS = 5, 3
"""Factors of the loops of a tiled sum: workgroups, virtual threads, threads, two loops; and the steps, two loops."""


def _factor(decision: Decision, part: int) -> int:
    assert isinstance(decision, tuple)
    return decision[part]


@dataclass
class _SharedBuffer:
    """A copy of a read region in workgroup memory.

    ``dims`` gives per dimension the constant part of its extent and (iteration variable, step) pairs; ``inside`` per
    iteration variable the (knob, part) pairs that run while the copy lives.
    """

    itemsize: int
    dims: list[tuple[int, list[tuple[int, int]]]]
    inside: dict[int, list[tuple[int, int]]]

    def nbytes(self, decisions: tuple[Decision, ...]) -> int:
        tile = {
            axis: math.prod(_factor(decisions[knob], part) for knob, part in parts)
            for axis, parts in self.inside.items()
        }
        elements = math.prod(
            size + sum(step * (tile.get(axis, 1) - 1) for axis, step in axes) for size, axes in self.dims
        )
        return elements * self.itemsize


@dataclass
class _Workgroups:
    """How decisions become workgroups: for each kernel of the sketch, the factors that its thread axes multiply."""

    threads: list[list[tuple[int, int | None]]] = field(default_factory=list)
    vthreads: list[list[tuple[int, int | None]]] = field(default_factory=list)
    low: int = 1
    shared: list[_SharedBuffer] = field(default_factory=list)
    unrolls: list[int] = field(default_factory=list)
    """Knobs that choose up to how many iterations a loop is unrolled."""


class Sketch(KnobSpace):
    """One of MetaSchedule's sketches of a kernel: a trace whose sampling instructions are knobs.

    Args:
        module: the unscheduled kernel, function ``main``.
        trace: as the space generator made it, with any decisions, before postprocessing.
        limits: those of one workgroup.
    """

    def __init__(self, module: tvm.IRModule, trace: Trace, limits: Limits) -> None:
        super().__init__(())
        self._limits = limits
        self._instructions = _before_postprocessing(trace)
        self._sampled = [i for i in self._instructions if i.kind.name in _SAMPLING]
        self.knobs = tuple(_knob(i, trace.decisions) for i in self._sampled)
        self._signature = _signature(trace_values(trace))
        self._groups = _TraceReader(module, self._instructions, self._sampled, trace).read()

    def fits(self, decisions: tuple[Decision, ...]) -> bool:
        """Return whether the workgroups that ``decisions`` imply keep the limits, as far as the trace shows."""
        groups = self._groups
        if any(self._product([(knob, None)], decisions) > _MAX_UNROLL for knob in groups.unrolls):
            return False
        for axes in groups.threads:
            if not groups.low <= self._product(axes, decisions) <= self._limits.threads:
                return False
        if any(self._product(axes, decisions) > _MAX_VTHREADS for axes in groups.vthreads):
            return False
        return sum(buffer.nbytes(decisions) for buffer in groups.shared) <= self._limits.shared_bytes

    def trace(self, decisions: tuple[Decision, ...]) -> Trace:
        """Return the trace with ``decisions``, to be applied to a fresh schedule."""
        return Trace(
            self._instructions,
            {i: list(d) if isinstance(d, tuple) else d for i, d in zip(self._sampled, decisions, strict=True)},
        )

    def decisions_of(self, trace: list[Any]) -> tuple[Decision, ...] | None:
        """Return the decisions of a trace in TVM's JSON values; None where it is no trace of this sketch."""
        if _signature(trace) != self._signature:
            return None
        decided = dict(trace[1])
        sampled = [n for n, (kind, *_) in enumerate(trace[0][: len(self._signature)]) if kind in _SAMPLING]
        found: tuple[Any, ...] = tuple(
            tuple(decided[n]) if isinstance(decided.get(n), list) else decided.get(n) for n in sampled
        )
        return found if all(knob.has(one) for knob, one in zip(self.knobs, found, strict=True)) else None

    def features(self, decisions: tuple[Decision, ...]) -> Features:
        """Return the features of a point that fits."""
        found = quantity_features(self._quantities(decisions))
        for number, (knob, decision) in enumerate(zip(self.knobs, decisions, strict=True)):
            if isinstance(knob, ChoiceKnob):
                assert isinstance(decision, int)
                found[f"choice.{number}"] = math.log2(1 + knob.candidates[decision])
            else:
                assert isinstance(decision, tuple)
                found |= {f"tile.{number}.{part}": math.log2(factor) for part, factor in enumerate(decision)}
        found["is.sketch"] = 1.0
        return found

    def _quantities(self, decisions: tuple[Decision, ...]) -> Quantities:
        """Return what a schedule does with a GPU, as far as the trace shows; tiles of more than two levels only."""
        read = self._groups
        threads = max((self._product(axes, decisions) for axes in read.threads), default=None)
        unrolls = [self._product([(knob, None)], decisions) for knob in read.unrolls]
        shared = sum(buffer.nbytes(decisions) for buffer in read.shared)
        spatial = [one for one in decisions if isinstance(one, tuple) and len(one) == _SPATIAL_PARTS]
        if threads is None or not spatial:
            return Quantities(threads=threads, statements=max(unrolls, default=None), shared_bytes=shared)
        terms = [one for one in decisions if isinstance(one, tuple) and len(one) == _REDUCTION_PARTS]
        own = [virtual * outer * inner for _, virtual, _, outer, inner in spatial]
        results, groups = math.prod(own), math.prod(one[0] for one in spatial)
        # Each operand lacks one of the axes along which a thread has several results.
        loads = sum(results / one for one in own if one > 1) or 2.0
        staged = shared / 4 / math.prod(outer * inner for _, outer, inner in terms)
        work = Work(groups, loads, staged, 1.0)
        return Quantities(
            threads=threads,
            groups=groups,
            results=results,
            statements=max(unrolls, default=None),
            shared_bytes=shared,
            loads=loads / results,
            staged=staged / (results * threads),
            cost=estimated_time(Tile(threads, 1, results, 1), work, self._limits),
        )

    def _product(self, axes: list[tuple[int, int | None]], decisions: tuple[Decision, ...]) -> int:
        product = 1
        for index, part in axes:
            decision, knob = decisions[index], self.knobs[index]
            if isinstance(knob, ChoiceKnob):
                assert isinstance(decision, int)
                product *= knob.candidates[decision]
            else:
                assert part is not None
                product *= _factor(decision, part)
        return product


def _before_postprocessing(trace: Trace) -> list[Any]:
    instructions = []
    for instruction in trace.insts:
        if instruction.kind.name == "EnterPostproc":
            break
        instructions.append(instruction)
    return instructions


def _signature(trace: list[Any]) -> tuple[str, ...]:
    """Return what identifies a sketch: its instructions before postprocessing with attributes, without decisions."""
    found = []
    for kind, inputs, attributes, outputs in trace[0]:
        if kind == "EnterPostproc":
            break
        found.append(f"{kind} {attributes} {len(inputs)} {len(outputs)}")
    return tuple(found)


def _knob(instruction: Any, decisions: Mapping[Any, Any]) -> TileKnob | ChoiceKnob:
    if instruction.kind.name == "SamplePerfectTile":
        parts, innermost = (int(a) for a in instruction.attrs)
        return TileKnob(math.prod(int(f) for f in decisions[instruction]), parts, innermost)
    candidates, weights = instruction.attrs
    return ChoiceKnob(tuple(int(c) for c in candidates), tuple(float(w.value) for w in weights))


class _TraceReader:
    """Follows loops through a trace: which part of which knob a thread axis takes, and the extent of each shared copy.

    ``hash`` identifies a trace's random variables: TVM defines it as their address, and ``==`` may build an expression.
    """

    def __init__(self, module: tvm.IRModule, instructions: list[Any], sampled: list[Any], trace: Trace) -> None:
        self._module = module
        self._instructions = instructions
        self._trace = trace
        self._sampled = {id(i): n for n, i in enumerate(sampled)}
        self._factor: dict[int, tuple[int, int | None]] = {}
        self._loop: dict[int, list[tuple[int, int | None]] | None] = {}
        self._axis_of_loop: dict[int, tuple[int, int]] = {}
        self._split_of: dict[int, tuple[int, tuple[int, int | None]]] = {}
        self._order: dict[int, list[int]] = {}
        self._bound: dict[int, str] = {}
        self._fused: dict[int, list[int]] = {}
        self._block_name: dict[int, str] = {}
        self._copies: dict[int, tuple[int, int, int]] = {}
        self._groups = _Workgroups()

    def read(self) -> _Workgroups:
        for position, instruction in enumerate(self._instructions):
            reader = getattr(self, f"_read_{instruction.kind.name.lower()}", None)
            if reader is not None:
                reader(instruction, position)
        return self._groups

    def _read_sampleperfecttile(self, instruction: Any, _: int) -> None:
        for part, output in enumerate(instruction.outputs):
            self._factor[hash(output)] = (self._sampled[id(instruction)], part)

    def _read_samplecategorical(self, instruction: Any, _: int) -> None:
        self._factor[hash(instruction.outputs[0])] = (self._sampled[id(instruction)], None)

    def _read_getsblock(self, instruction: Any, _: int) -> None:
        self._block_name[hash(instruction.outputs[0])] = str(instruction.attrs[0])

    def _read_getloops(self, instruction: Any, _: int) -> None:
        for axis, loop in enumerate(instruction.outputs):
            self._axis_of_loop.setdefault(hash(loop), (hash(instruction.inputs[0]), axis))

    def _read_split(self, instruction: Any, _: int) -> None:
        loop, *factors = instruction.inputs
        for factor, output in zip(factors, instruction.outputs, strict=True):
            known = None if factor is None else self._factor.get(hash(factor))
            self._loop[hash(output)] = None if known is None else [known]
            if known is not None and hash(loop) in self._axis_of_loop:
                self._split_of[hash(output)] = (self._axis_of_loop[hash(loop)][1], known)

    def _read_reorder(self, instruction: Any, _: int) -> None:
        order = [hash(loop) for loop in instruction.inputs]
        for loop in order:
            self._order[loop] = order

    def _read_fuse(self, instruction: Any, _: int) -> None:
        parts = [self._loop.get(hash(loop)) for loop in instruction.inputs]
        output = hash(instruction.outputs[0])
        self._loop[output] = None if any(p is None for p in parts) else [a for p in parts for a in p or ()]
        self._fused[output] = [hash(loop) for loop in instruction.inputs]

    def _read_bind(self, instruction: Any, _: int) -> None:
        loop, axis = hash(instruction.inputs[0]), str(instruction.attrs[0])
        for part in self._fused.get(loop, [loop]):
            self._bound[part] = axis
        factors = self._loop.get(loop)
        if factors and axis.startswith("threadIdx"):
            self._groups.threads.append(factors)
        elif factors and axis.startswith("vthread"):
            self._groups.vthreads.append(factors)

    def _read_annotate(self, instruction: Any, _: int) -> None:
        key = str(instruction.attrs[0])
        if key == "meta_schedule.thread_extent_low_inclusive":
            self._groups.low = int(instruction.inputs[1])
        elif key == "meta_schedule.unroll_explicit" and hash(instruction.inputs[1]) in self._factor:
            self._groups.unrolls.append(self._factor[hash(instruction.inputs[1])][0])

    def _read_cacheread(self, instruction: Any, position: int) -> None:
        index, scope = instruction.attrs
        if str(scope) == "shared":
            self._copies[hash(instruction.outputs[0])] = (hash(instruction.inputs[0]), int(index), position)

    def _read_computeat(self, instruction: Any, _: int) -> None:
        block, loop = (hash(i) for i in instruction.inputs)
        if block in self._copies and loop in self._order:
            consumer, index, position = self._copies[block]
            buffer = self._shared(consumer, index, position, loop)
            if buffer is not None:
                self._groups.shared.append(buffer)

    def _shared(self, consumer: int, index: int, position: int, at: int) -> _SharedBuffer | None:
        """Return the copy of region ``index`` that block ``consumer`` reads, made in each iteration of loop ``at``."""
        if consumer not in self._block_name:
            return None
        # Only the instructions before the copy decide what the block reads, and under which variables.
        schedule = Schedule(self._module)
        Trace(self._instructions[:position], self._trace.decisions).apply_to_schedule(schedule, remove_postproc=True)
        block = schedule.get(schedule.get_sblock(self._block_name[consumer]))
        # Copies do not change the order of the regions that the block reads.
        region = block.reads[index]
        axes = [iteration.var for iteration in block.iter_vars]
        inside: dict[int, list[tuple[int, int]]] = {}
        order = self._order[at]
        for place, loop in enumerate(order):
            runs = place > order.index(at) or self._bound.get(loop, "").startswith(("threadIdx", "vthread"))
            if runs and loop in self._split_of:
                axis, (knob, part) = self._split_of[loop]
                if part is not None:
                    inside.setdefault(axis, []).append((knob, part))
        dims = [_span(interval, axes) for interval in region.region]
        return _SharedBuffer(np.dtype(str(region.source.ty.dtype)).itemsize, dims, inside)


def _span(interval: Any, axes: list[Any]) -> tuple[int, list[tuple[int, int]]]:
    """Return the extent of one dimension of a region, and how far a step of each axis moves its start."""

    def start(moved: Any) -> int | None:
        analyzer = Analyzer()
        for axis in axes:
            analyzer.bind(axis, tvm.tirx.const(int(axis is moved), str(axis.ty.dtype)))
        value = analyzer.simplify(interval.min)
        return int(value) if isinstance(value, tvm.tirx.IntImm) else None

    origin = start(None)
    size = int(interval.extent) if isinstance(interval.extent, tvm.tirx.IntImm) else 1
    steps = []
    for place, axis in enumerate(axes):
        shifted = start(axis)
        if origin is not None and shifted is not None and shifted != origin:
            steps.append((place, abs(shifted - origin)))
    return size, steps
