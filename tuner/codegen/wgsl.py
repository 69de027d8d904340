"""Scheduled TensorIR as a WGSL `Program`.

TVM's pipeline lowers the function and splits it into host and device functions. The host function is not compiled:
kernels, buffers in binding order, grids and the order of launches are read from its IR. `wgsl_printer` writes the
device functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import register_op_attr
from tvm.ir.instrument import pass_instrument
from tvm_ffi import structural_map, structural_walk

from ...devices.limits import Tier
from ...devices.program import Buffer, Dispatch, Program, Requirements, Shader
from ..schedule_rules import BOUNDED_GRID, expanded
from .lowered_kernel import unread_value
from .targets import emit_target
from .wgsl_layout import EmitError
from .wgsl_printer import Grid, PrintedKernel, print_kernel

__all__ = ["EmitError", "emit_wgsl"]

# Each lane of a vector is computed as one; without this, TVM takes vectors with an error function apart.
register_op_attr("tirx.erf", "TVectorizable", True)

_ENTRY = "main_kernel"
"""Entry point of every shader; with one name, equal shaders of a program are one."""

_HOST_PASSES = frozenset({"tirx.MakePackedAPI", "tirx.FP8StorageLegalize", "tirx.BF16StorageLegalize"})
"""Passes that only a compiled host function needs; the last two depend on the first, and treat types WGSL lacks."""

_DTYPE_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float16": 2}
"""Bytes of the types that a buffer may hold; WGSL stores no values of one or eight bytes."""


def emit_wgsl(mod: tvm.IRModule, tier: Tier) -> Program:
    """Return the WGSL program of ``mod``, which holds one scheduled PrimFunc ``main`` and is not changed.

    The text depends on the schedule and the names inside the function, not on the function's own name.

    Raises:
        EmitError: TVM cannot lower the schedule, or the program breaks a limit of ``tier`` or of WGSL.
    """
    try:
        func = expanded(mod)["main"]
    except ValueError as error:
        raise EmitError(f"the schedule cannot be expanded: {error}") from error
    bounded = bool(func.attrs.get(BOUNDED_GRID, False))
    host, kernels = _lower(func, tier)
    if _loses_lanes(kernels):
        host, kernels = _lower(_without_vectors(func), tier)
        if _loses_lanes(kernels):
            raise EmitError("TVM stores one lane of a vector as all of them")
    reader = _HostReader(func, host)
    shaders: list[Shader] = []
    printed: list[PrintedKernel] = []
    dispatches: list[Dispatch] = []
    for launch in reader.launches:
        grid = _spread(launch, tier)
        kernel = print_kernel(kernels[launch.kernel], _ENTRY, launch.threads, _printed_grid(launch, grid, bounded))
        _check_bindings(launch, kernel, reader)
        shader = Shader(_ENTRY, kernel.source, launch.threads)
        if shader not in shaders:
            shaders.append(shader)
        printed.append(kernel)
        dispatches.append(Dispatch(shader=shaders.index(shader), buffers=launch.buffers, grid=grid, uniform=()))
    if not dispatches:
        raise EmitError("the schedule launches no kernel: no loop is bound to a thread")
    program = Program(
        shaders=tuple(shaders),
        dispatches=tuple(dispatches),
        scratch=tuple(reader.scratch),
        needs=_requirements(shaders, dispatches, printed, reader),
    )
    problems = tier.violations(program.needs)
    if problems:
        raise EmitError(f"the program does not fit tier {tier.name}: {'; '.join(problems)}")
    return program


def _lower(func: tirx.PrimFunc, tier: Tier) -> tuple[tirx.PrimFunc, tvm.IRModule]:
    """Return the host function with its launches, and the device functions by kernel name."""
    target = emit_target(tier)
    # A new module with a fixed function name: kernel names derive from it, and passes may change their input.
    module = tvm.IRModule({"main": func.without_attr("target").with_attr("global_symbol", "main")})
    try:
        module = tirx.transform.BindTarget(target)(module)
        pipeline, _, _ = tirx.get_default_tir_pipeline(target)
        # The printer finds what is loaded or computed twice itself, and knows where it may be moved to. Memory that
        # two buffers share would need a barrier between them; registers are given out by the driver.
        config = {"tirx.disable_cse_tir": True, "tirx.disable_storage_rewrite": True}
        with tvm.transform.PassContext(instruments=[_DeviceOnly()], config=config):
            module = pipeline(module)
            host = module["main"]
            return host, tvm.IRModule({var: f for var, f in module.functions_items() if var.name_hint != "main"})
    except Exception as error:
        raise EmitError(f"TVM cannot lower this schedule: {_first_line(error)}") from error


def _loses_lanes(kernels: tvm.IRModule) -> bool:
    """Return whether TVM's vectoriser went wrong.

    Where the lanes of a value depend on a choice that it cannot vectorise, it computes them one after the other, each
    in a variable of its own, and then stores the last one as all of them. So the others are never read.
    """
    return any(unread_value(func.body) for func in kernels.functions.values())


def _without_vectors(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return ``func`` with the vectorised loops unrolled in which TVM's vectoriser may go wrong: they name a value."""

    def unrolled(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.VECTORIZED:
            return loop
        values: list[Any] = []
        structural_walk(loop.body, [(tirx.Bind, values.append)])
        if not values:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.UNROLLED, loop.body)

    return func.with_body(structural_map(func.body, [(tirx.For, unrolled)]))


@pass_instrument
class _DeviceOnly:
    """Skips the passes that make the host function callable."""

    def should_run(self, _module: tvm.IRModule, info: Any) -> bool:
        return info.name not in _HOST_PASSES


@dataclass(frozen=True)
class _Launch:
    """One ``call_ffi_kernel`` of the host; ``grid`` is as TVM launches it (see `_spread`)."""

    kernel: str
    buffers: tuple[Buffer, ...]
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]


class _HostReader:
    """Reads allocations, views and launches, in order, from the host function."""

    def __init__(self, func: tirx.PrimFunc, host: tirx.PrimFunc) -> None:
        self.arg_bytes = [_nbytes(p) for p in func.params]
        self.scratch: list[int] = []
        self.launches: list[_Launch] = []
        self._buffers: dict[Any, Buffer] = {p: Buffer("arg", i) for i, p in enumerate(host.params)}
        for statement in _flatten(host.body):
            self._read(statement)

    def nbytes(self, buffer: Buffer) -> int:
        """Return the size of ``buffer`` in bytes."""
        return self.arg_bytes[buffer.index] if buffer.kind == "arg" else self.scratch[buffer.index]

    def _read(self, statement: tirx.Stmt) -> None:
        if isinstance(statement, tirx.AllocBuffer):
            self._buffers[statement.buffer] = Buffer("scratch", len(self.scratch))
            self.scratch.append(_nbytes(statement.buffer))
        elif isinstance(statement, tirx.DeclBuffer):
            self._buffers[statement.buffer] = self._resolve(statement.data)
        elif isinstance(statement, tirx.Evaluate) and _is_call(statement.value, "tirx.call_ffi_kernel"):
            self.launches.append(self._launch(statement.value))
        elif not (isinstance(statement, tirx.Evaluate) and isinstance(statement.value, tvm.tirx.IntImm)):
            raise EmitError(f"the schedule leaves work to the host: {_first_line(statement)}")

    def _resolve(self, data: Any) -> Buffer:
        if _is_call(data, "tirx.buffer_data"):
            data = data.args[0]
        try:
            return self._buffers[data]
        except KeyError:
            raise EmitError(f"the host passes {_first_line(data)}, which is no buffer of this kernel") from None

    def _launch(self, call: Any) -> _Launch:
        tags = [str(tag) for tag in call.attrs.launch_params]
        name, *args = call.args
        extents = {tag: _constant(e) for tag, e in zip(tags, args[len(args) - len(tags) :], strict=True)}
        buffers = tuple(self._resolve(arg) for arg in args[: len(args) - len(tags)])

        def triple(prefix: str) -> tuple[int, int, int]:
            x, y, z = (extents.pop(f"{prefix}.{axis}", 1) for axis in "xyz")
            return (x, y, z)

        launch = _Launch(name.value, buffers, triple("blockIdx"), triple("threadIdx"))
        if extents:
            raise EmitError(f"{launch.kernel} is launched with {', '.join(extents)}, which WGSL does not have")
        return launch


def _check_bindings(launch: _Launch, kernel: PrintedKernel, reader: _HostReader) -> None:
    if len(kernel.bindings) != len(launch.buffers):
        raise EmitError(
            f"{launch.kernel} has {len(kernel.bindings)} bindings and is given {len(launch.buffers)} buffers"
        )
    written = {b for b, layout in zip(launch.buffers, kernel.bindings, strict=True) if layout.written}
    for buffer, layout in zip(launch.buffers, kernel.bindings, strict=True):
        if reader.nbytes(buffer) != layout.nbytes:
            raise EmitError(f"{launch.kernel} sees {buffer.kind} {buffer.index} with another size")
        if buffer in written and launch.buffers.count(buffer) > 1:
            # WebGPU forbids two bindings of one range in a dispatch when either is writable.
            raise EmitError(f"{launch.kernel} binds {buffer.kind} {buffer.index} twice, once to write")


def _printed_grid(launch: _Launch, grid: tuple[int, int, int], bounded: bool) -> Grid:
    """Return what the shader must know of the dispatched ``grid``."""
    return Grid(launch.grid[0], launch.grid[1], grid[0] if grid[2] > 1 else None, bounded)


def _spread(launch: _Launch, tier: Tier) -> tuple[int, int, int]:
    """Return the grid with a long x spread over x and z, from which the shader computes ``blockIdx.x``."""
    most = tier.limits["maxComputeWorkgroupsPerDimension"]
    x, y, z = launch.grid
    if z != 1:
        raise EmitError(f"{launch.kernel} uses blockIdx.z, which the spread of a long x needs")
    if y > most:
        raise EmitError(f"maxComputeWorkgroupsPerDimension {y} exceeds {most} in y of {launch.kernel}")
    z = -(-x // most)
    return (-(-x // z), y, z)


def _requirements(
    shaders: list[Shader], dispatches: list[Dispatch], kernels: list[PrintedKernel], reader: _HostReader
) -> Requirements:
    sizes = [s.workgroup for s in shaders]
    return Requirements(
        threads=max(x * y * z for x, y, z in sizes),
        workgroup_size=(max(s[0] for s in sizes), max(s[1] for s in sizes), max(s[2] for s in sizes)),
        workgroup_bytes=max(kernel.workgroup_bytes for kernel in kernels),
        storage_buffers=max(len(d.buffers) for d in dispatches),
        # WebGPU binds whole words.
        binding_bytes=max((-(-reader.nbytes(b) // 4) * 4 for d in dispatches for b in d.buffers), default=0),
        features=tuple(sorted(frozenset().union(*(kernel.features for kernel in kernels)))),
    )


def _flatten(statement: tirx.Stmt) -> Iterator[tirx.Stmt]:
    if isinstance(statement, tirx.SeqStmt):
        for child in statement.seq:
            yield from _flatten(child)
    elif isinstance(statement, tirx.AttrStmt):
        yield from _flatten(statement.body)
    else:
        yield statement


def _is_call(value: Any, op: str) -> bool:
    return isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == op


def _nbytes(buffer: Any) -> int:
    """Return the bytes of a TensorIR buffer of static shape."""
    dtype = str(buffer.ty.dtype)
    if dtype not in _DTYPE_BYTES:
        raise EmitError(f"buffer {buffer.name} holds {dtype}, which a WebGPU storage buffer cannot")
    return math.prod(_constant(e) for e in buffer.ty.shape) * _DTYPE_BYTES[dtype]


def _constant(value: Any) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, tirx.IntImm):
        return int(value.value)
    raise EmitError(f"{_first_line(value)} is not known before the kernel runs; shapes must be static")


def _first_line(error: object) -> str:
    """Return the first line that is neither blank nor a comment, or the type's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith("#")), type(error).__name__)
