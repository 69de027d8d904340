"""Sums that are written into the memory of a summand.

A residual connection or a sum over parts of a picture reads one tensor and writes another of the same size. Where
nothing reads the summand afterwards, both are one tensor, which takes the memory of one.

WebGPU refuses a buffer that one dispatch binds both read-only and writable (W3C WebGPU, 3.4.5, usage scopes), so the
shader reads the summand through the binding of its result. That is right where each element is read for nothing but
the result's element at the same place: no thread reads what another one writes. Operations and their order stay as
they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...devices.program import Buffer, Dispatch, Program, Shader
from ...tuner.ir import Call, Capture, Kernel, Operand, Stage

_BINDING = re.compile(
    r"^@group\(0\) @binding\((?P<number>\d+)\) "
    r"var<storage, (?P<access>read|read_write)> (?P<name>\w+) : (?P<type>.+);\n",
    re.MULTILINE,
)
_NUMBER = re.compile(r"@binding\((\d+)\)")
"""Numbers of all bindings: a sliced grid has a uniform, too."""


def add_in_place(capture: Capture, programs: Mapping[str, Program]) -> tuple[Capture, dict[str, Program]]:
    """Return ``capture`` and ``programs``, by kernel id, with results in the place of summands.

    In the capture both operands of such a call are one temp. A kernel's calls all write in place or none, so that it
    has one program.
    """
    uses = {name: _Uses.of(stage, capture.kernels) for name, stage in capture.stages.items()}
    changed: dict[str, _InPlace] = {}
    for kernel, program in programs.items():
        calls = [
            (uses[name], number, call)
            for name, stage in capture.stages.items()
            for number, call in enumerate(stage.calls)
            if call.kernel == kernel
        ]
        for found in _candidates(capture.kernels[kernel], program):
            if all(use.may_share(number, call, found) for use, number, call in calls):
                changed[kernel] = found
                break
    stages = {name: _renamed(stage, changed) for name, stage in capture.stages.items()}
    made = {kernel: changed[kernel].program if kernel in changed else p for kernel, p in programs.items()}
    return replace(capture, stages=stages), made


@dataclass(frozen=True)
class _InPlace:
    """``program`` reads argument ``summand`` of its kernel from where it writes argument ``result``."""

    summand: int
    result: int
    program: Program


@dataclass(frozen=True)
class _Uses:
    """The last call of a stage that uses each temp, and the calls that write it."""

    stage: Stage
    last: dict[int, int]
    writers: dict[int, list[int]]

    @classmethod
    def of(cls, stage: Stage, kernels: Mapping[str, Kernel]) -> _Uses:
        last: dict[int, int] = {}
        writers: dict[int, list[int]] = {}
        for number, call in enumerate(stage.calls):
            for index, operand in enumerate(call.operands):
                if operand.space == "temp":
                    last[operand.index] = number
                    if index in kernels[call.kernel].outputs:
                        writers.setdefault(operand.index, []).append(number)
        return cls(stage, last, writers)

    def may_share(self, number: int, call: Call, found: _InPlace) -> bool:
        """Whether the summand of a call ends with it, and its result begins with it."""
        summand, result = call.operands[found.summand], call.operands[found.result]
        return (
            self._whole(summand)
            and self._whole(result)
            and summand.nbytes == result.nbytes
            and [o.index for o in call.operands if o.space == "temp"].count(summand.index) == 1
            and self.last[summand.index] == number
            and self.writers[result.index] == [number]
        )

    def _whole(self, operand: Operand) -> bool:
        return operand.space == "temp" and operand.nbytes == self.stage.temps[operand.index]


def _renamed(stage: Stage, changed: Mapping[str, _InPlace]) -> Stage:
    """Return a stage in which the results of ``changed`` kernels are the temps of their summands."""
    names: dict[int, int] = {}
    calls = []
    for call in stage.calls:
        found = changed.get(call.kernel)
        if found is not None:
            summand = call.operands[found.summand].index
            names[call.operands[found.result].index] = names.get(summand, summand)
        operands = [replace(o, index=names.get(o.index, o.index)) if o.space == "temp" else o for o in call.operands]
        calls.append(replace(call, operands=tuple(operands)))
    return replace(stage, calls=calls)


def _candidates(kernel: Kernel, program: Program) -> Iterator[_InPlace]:
    """Yield the ways in which a program can write its only result in place."""
    if len(kernel.outputs) != 1:
        return
    result = kernel.outputs[0]
    for index, param in enumerate(kernel.params):
        if index != result and param.nbytes == kernel.params[result].nbytes:
            made = _in_place(program, Buffer("arg", index), Buffer("arg", result))
            if made is not None:
                yield _InPlace(index, result, made)


def _in_place(program: Program, summand: Buffer, result: Buffer) -> Program | None:
    """Return a program that finds ``summand`` in ``result``; None where it cannot."""
    shaders: dict[int, tuple[int, Shader]] = {}
    for dispatch in program.dispatches:
        counts = dispatch.buffers.count(summand), dispatch.buffers.count(result)
        if counts == (0, 0):
            continue
        if counts != (1, 1):
            return None
        place = dispatch.buffers.index(summand)
        known = shaders.get(dispatch.shader)
        if known is None:
            made = _reading_its_result(program.shaders[dispatch.shader], place, dispatch.buffers.index(result))
            if made is None:
                return None
            shaders[dispatch.shader] = (place, made)
        elif known[0] != place:
            return None
    if any((d.shader in shaders) != (summand in d.buffers) for d in program.dispatches) or not shaders:
        return None

    def bound(dispatch: Dispatch) -> Dispatch:
        return replace(dispatch, buffers=tuple(buffer for buffer in dispatch.buffers if buffer != summand))

    dispatches = tuple(map(bound, program.dispatches))
    return replace(
        program,
        shaders=tuple(shaders[i][1] if i in shaders else shader for i, shader in enumerate(program.shaders)),
        dispatches=dispatches,
        needs=replace(program.needs, storage_buffers=max(len(dispatch.buffers) for dispatch in dispatches)),
    )


def _reading_its_result(shader: Shader, summand: int, result: int) -> Shader | None:
    """Return a shader without the binding ``summand``, whose elements it reads from the binding ``result``.

    None where an element of the summand is read elsewhere than in an assignment to the same element of the result.
    """
    bindings = {int(found["number"]): found for found in _BINDING.finditer(shader.source)}
    if summand not in bindings or result not in bindings:
        return None
    read, written = bindings[summand], bindings[result]
    if (read["access"], written["access"], read["type"]) != ("read", "read_write", written["type"]):
        return None
    name = re.compile(rf"\b{read['name']}\b")
    source = shader.source.replace(read[0], "", 1)
    for line in filter(name.search, source.splitlines()):
        place = re.match(rf"\s*{written['name']}(\[.*?\]) = ", line)
        if place is None or len(name.findall(line)) != line.count(read["name"] + place[1]):
            return None

    def renumbered(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"@binding({number - (number > summand)})"

    return replace(shader, source=_NUMBER.sub(renumbered, name.sub(written["name"], source)))
