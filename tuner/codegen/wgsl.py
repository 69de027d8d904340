"""Scheduled TensorIR as a WGSL `Program`, by TVM's device code generation.

TVM's pipeline lowers the function and splits it into host and device functions. The host function is not compiled:
kernels, buffers in binding order, grids and the order of launches are read from its IR.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir.instrument import pass_instrument

from ...devices.limits import Tier
from ...devices.program import Buffer, Dispatch, Program, Requirements, Shader
from ...support.errors import WgtuneError
from .targets import emit_target

_ENTRY = "main_kernel"
"""Entry point of every shader; with one name, equal shaders of a program are one."""

_HOST_PASSES = frozenset({"tirx.MakePackedAPI", "tirx.FP8StorageLegalize", "tirx.BF16StorageLegalize"})
"""Passes that only a compiled host function needs; the last two depend on the first, and treat types WGSL lacks."""

_DTYPE_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float16": 2}
"""Bytes of the types that a buffer may hold; WGSL stores no values of one or eight bytes."""

_SCALAR_BYTES = {"f32": 4, "i32": 4, "u32": 4, "f16": 2}
_FEATURES = {"f16": "shader-f16", "subgroups": "subgroups"}
"""WebGPU features by the WGSL extensions (``enable``) that need them."""

_STORAGE = re.compile(r"@binding\((\d+)\) var<storage, (read|read_write)> \w+ : array<([\w<>]+)>;")
_WORKGROUP = re.compile(r"var<workgroup> \w+ : array<([\w<>]+), (\d+)>;")
_WORKGROUP_SIZE = re.compile(r"@workgroup_size\((\d+), (\d+), (\d+)\)")
_ENABLE = re.compile(r"^enable (\w+);", re.MULTILINE)
_NOT_FINITE = re.compile(r"(?<![\w.])-?(?:inf|nan)[fh]?\b")

_CHOICE = re.compile(
    r"var (?P<name>condval\w*) : (?P<type>[\w<>]+);\n"
    r"\s*if \((?P<condition>.*)\) \{\n"
    r"\s*(?P=name) = (?P<yes>.*);\n"
    r"\s*\} else \{\n"
    r"\s*(?P=name) = (?P<no>.*);\n"
    r"\s*\}"
)
"""A conditional value as TVM writes it."""


class EmitError(WgtuneError):
    """A schedule for which no WGSL within the tier's limits can be emitted."""


class _CodegenError(EmitError):
    """TVM's WGSL code generation failed on lowered code."""


def emit_wgsl(mod: tvm.IRModule, tier: Tier) -> Program:
    """Return the WGSL program of ``mod``, which holds one scheduled PrimFunc ``main`` and is not changed.

    The text depends on the schedule and the names inside the function, not on the function's own name.

    Raises:
        EmitError: TVM cannot lower the schedule, or the program breaks a limit of ``tier`` or of WGSL.
    """
    try:
        return _emit(mod["main"], tier, vectorize=True)
    except _CodegenError:
        # TVM 0.27 turns arrays that are accessed by vectors into arrays of vectors, and fails (VectorTypeRewriter) on
        # scalar accesses at multiples of more than a vector: one candidate in eight of a matmul. Without vectorization
        # the same schedule is legal WGSL, perhaps slower, as measuring will show.
        return _emit(mod["main"], tier, vectorize=False)


def _emit(func: tirx.PrimFunc, tier: Tier, *, vectorize: bool) -> Program:
    host, kernels = _lower(func, tier, vectorize)
    reader = _HostReader(func, host)
    shaders: list[Shader] = []
    texts: dict[str, _KernelText] = {}
    dispatches: list[Dispatch] = []
    for launch in reader.launches:
        if launch.kernel not in texts:
            texts[launch.kernel] = _generate(launch.kernel, kernels, tier)
        text = texts[launch.kernel]
        _check_bindings(launch, text, reader)
        shader = Shader(_ENTRY, text.source, text.workgroup)
        if launch.threads != text.workgroup:
            raise EmitError(f"{launch.kernel} is launched with {launch.threads} threads, its WGSL has {text.workgroup}")
        if shader not in shaders:
            shaders.append(shader)
        dispatches.append(
            Dispatch(
                shader=shaders.index(shader),
                buffers=launch.buffers,
                grid=_spread(launch, tier),
                uniform=(*launch.scalars, launch.grid[0] - 1) if text.has_uniform else (),
            )
        )
    if not dispatches:
        raise EmitError("the schedule launches no kernel: no loop is bound to a thread")
    program = Program(
        shaders=tuple(shaders),
        dispatches=tuple(dispatches),
        scratch=tuple(reader.scratch),
        needs=_requirements(shaders, dispatches, list(texts.values()), reader),
    )
    problems = tier.violations(program.needs)
    if problems:
        raise EmitError(f"the program does not fit tier {tier.name}: {'; '.join(problems)}")
    return program


def _lower(func: tirx.PrimFunc, tier: Tier, vectorize: bool) -> tuple[tirx.PrimFunc, tvm.IRModule]:
    """Return the host function with its launches, and the device functions by kernel name."""
    target = emit_target(tier)
    # A new module with a fixed function name: kernel names derive from it, and passes may change their input.
    module = tvm.IRModule({"main": func.without_attr("target").with_attr("global_symbol", "main")})
    try:
        module = tirx.transform.BindTarget(target)(module)
        pipeline, _, finalize_device = tirx.get_default_tir_pipeline(target)
        # CSE only adds `let`s that later passes make redundant; without it the WGSL is a sixth shorter and equivalent.
        config = {"tirx.disable_cse_tir": True, "tirx.disable_vectorize": not vectorize}
        with tvm.transform.PassContext(instruments=[_DeviceOnly()], config=config):
            module = pipeline(module)
            host = module["main"]
            device = tvm.IRModule({var: f for var, f in module.functions_items() if var.name_hint != "main"})
            return host, finalize_device()(device)
    except Exception as error:
        raise EmitError(f"TVM cannot lower this schedule: {_first_line(error)}") from error


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
    scalars: tuple[int, ...]
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
        buffers, scalars = [], []
        for arg in args[: len(args) - len(tags)]:
            if isinstance(arg, tirx.IntImm | tirx.FloatImm):
                scalars.append(_word(arg))
            else:
                buffers.append(self._resolve(arg))

        def triple(prefix: str) -> tuple[int, int, int]:
            x, y, z = (extents.pop(f"{prefix}.{axis}", 1) for axis in "xyz")
            return (x, y, z)

        launch = _Launch(name.value, tuple(buffers), tuple(scalars), triple("blockIdx"), triple("threadIdx"))
        if extents:
            raise EmitError(f"{launch.kernel} is launched with {', '.join(extents)}, which WGSL does not have")
        return launch


@dataclass(frozen=True)
class _KernelText:
    """The WGSL of one kernel with what it declares; ``bindings`` are (access, element bytes)."""

    source: str
    workgroup: tuple[int, int, int]
    bindings: tuple[tuple[str, int], ...]
    workgroup_bytes: int
    features: frozenset[str]
    has_uniform: bool


def _generate(name: str, kernels: tvm.IRModule, tier: Tier) -> _KernelText:
    try:
        built = _codegen()(tvm.IRModule({name: kernels[name]}), emit_target(tier))
        source = str(built.inspect_source())
    except Exception as error:
        raise _CodegenError(f"TVM cannot write WGSL for {name}: {_first_line(error)}") from error
    # Comments name the function; without them equal kernels have equal text.
    source = "\n".join(line for line in source.splitlines() if not line.startswith("//")).strip() + "\n"
    source = re.sub(rf"\bfn {re.escape(name)}\(", f"fn {_ENTRY}(", source)
    source = without_branches(source)
    found = _NOT_FINITE.search(source)
    if found:
        raise EmitError(f"{name} needs the constant {found.group()}, which WGSL cannot express")
    size = _WORKGROUP_SIZE.search(source)
    if size is None:
        raise EmitError(f"the WGSL of {name} has no workgroup size")
    x, y, z = (int(n) for n in size.groups())
    return _KernelText(
        source=source,
        workgroup=(x, y, z),
        bindings=tuple((access, _element_bytes(name, element)) for _, access, element in _STORAGE.findall(source)),
        # Each variable takes a multiple of 16 bytes (W3C WebGPU, "validating GPUProgrammableStage").
        workgroup_bytes=sum(
            -(-_element_bytes(name, element) * int(count) // 16) * 16 for element, count in _WORKGROUP.findall(source)
        ),
        features=frozenset(_FEATURES.get(extension, extension) for extension in _ENABLE.findall(source)),
        has_uniform="var<uniform>" in source,
    )


def without_branches(source: str) -> str:
    """Return TVM's WGSL ``source`` with conditional values as ``select``, and with conditions as ``&`` and ``|``.

    Padding makes a convolution choose between a value and zero for every element that it loads. TVM writes each choice
    as an ``if`` with short-circuit operators in its condition, and an unrolled schedule has dozens in a row.
    SwiftShader, which serves WebGPU in browsers without a GPU, took over 8 GiB and a minute to compile some of them,
    and 0.4 s without the branches.

    ``select``, ``&`` and ``|`` evaluate every operand, which changes no result: TVM's operands have no side effects and
    stand in parentheses. A load beyond its buffer, which the condition prevented, is harmless in WebGPU (W3C WGSL,
    "Out-of-bounds access"), and its value is not selected. A choice with statements of its own in a branch stays.
    """
    source = source.replace("&&", "&").replace("||", "|")
    return _CHOICE.sub(r"let \g<name> : \g<type> = select(\g<no>, \g<yes>, \g<condition>);", source)


@lru_cache(maxsize=1)
def _codegen() -> Any:
    return tvm.get_global_func("target.build.webgpu")


def _element_bytes(kernel: str, element: str) -> int:
    """Return the bytes of one array element in WGSL: a scalar or a vector; three lanes take the space of four."""
    vector = re.fullmatch(r"vec([234])<(\w+)>", element)
    lanes, scalar = (int(vector.group(1)), vector.group(2)) if vector else (1, element)
    if scalar not in _SCALAR_BYTES:
        raise EmitError(f"{kernel} keeps {element} values in a buffer, which WGSL cannot")
    return _SCALAR_BYTES[scalar] * (4 if lanes == 3 else lanes)


def _check_bindings(launch: _Launch, text: _KernelText, reader: _HostReader) -> None:
    if len(text.bindings) != len(launch.buffers):
        raise EmitError(f"{launch.kernel} has {len(text.bindings)} bindings and is given {len(launch.buffers)} buffers")
    written = {b for b, (access, _) in zip(launch.buffers, text.bindings, strict=True) if access == "read_write"}
    for buffer, (_, element) in zip(launch.buffers, text.bindings, strict=True):
        if reader.nbytes(buffer) % element:
            raise EmitError(f"{launch.kernel} sees {buffer.kind} {buffer.index} as elements of another size")
        if buffer in written and launch.buffers.count(buffer) > 1:
            # WebGPU forbids two bindings of one range in a dispatch when either is writable.
            raise EmitError(f"{launch.kernel} binds {buffer.kind} {buffer.index} twice, once to write")


def _spread(launch: _Launch, tier: Tier) -> tuple[int, int, int]:
    """Return the grid with a long x spread over x and z, from which TVM's WGSL computes ``blockIdx.x``."""
    most = tier.limits["maxComputeWorkgroupsPerDimension"]
    x, y, z = launch.grid
    if z != 1:
        raise EmitError(f"{launch.kernel} uses blockIdx.z, which the spread of a long x needs")
    if y > most:
        raise EmitError(f"maxComputeWorkgroupsPerDimension {y} exceeds {most} in y of {launch.kernel}")
    z = -(-x // most)
    return (-(-x // z), y, z)


def _requirements(
    shaders: list[Shader], dispatches: list[Dispatch], texts: list[_KernelText], reader: _HostReader
) -> Requirements:
    sizes = [s.workgroup for s in shaders]
    return Requirements(
        threads=max(x * y * z for x, y, z in sizes),
        workgroup_size=(max(s[0] for s in sizes), max(s[1] for s in sizes), max(s[2] for s in sizes)),
        workgroup_bytes=max(t.workgroup_bytes for t in texts),
        storage_buffers=max(len(d.buffers) for d in dispatches),
        binding_bytes=max((reader.nbytes(b) for d in dispatches for b in d.buffers), default=0),
        features=tuple(sorted(frozenset().union(*(t.features for t in texts)))),
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


def _word(scalar: Any) -> int:
    """Return the 32 bits of a scalar argument as an unsigned integer."""
    kind = {"int32": np.int32, "uint32": np.uint32, "float32": np.float32}.get(str(scalar.ty.dtype))
    if kind is None:
        raise EmitError(f"a scalar of type {scalar.ty.dtype} does not fit WGSL's uniform")
    return int(np.array(scalar.value, kind).view(np.uint32))


def _first_line(error: object) -> str:
    """Return the first line that is neither blank nor a comment, or the type's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith("#")), type(error).__name__)
