"""From a Relax module to a stage: fusion into TensorIR kernels, then a list of calls over planned tensors.

TVM's memory planner is not used: every intermediate is a tensor of its own, and the bundle's builder decides which of
them share memory. Views cost nothing: a reshape, or a range marked by the converters, refers to the same bytes.
Kernels read weights as these are stored (`weights.reads`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, te
from tvm.relax import transform as passes
from tvm.tirx import PrimFunc

from ...support.enums import ComputePrecision, WeightPrecision
from ...support.errors import CaptureError
from ..ir import Call, Kernel, Operand, Stage, TensorSpec, WeightFormat
from .kernel import make_kernel
from .rewrites.graph import operator_name
from .rewrites.markers import CONCAT, SLICE
from .sincos import legalize_cos, legalize_sin
from .torch_ops import legalize_upsample
from .weights.formats import stored_specs
from .weights.halves import attention_of_halves, half_values, is_attention
from .weights.reads import choose_formats, with_stored
from .weights.transform import TRANSFORM

WGSL_DTYPES = frozenset({"float32", "float16", "int32", "uint32"})
"""Types that a storage buffer can hold in TVM's layout; WGSL has no 64-bit numbers and stores no booleans."""

_LEGALIZE = {
    "relax.sin": legalize_sin,
    "relax.cos": legalize_cos,
    "relax.image.resize2d": legalize_upsample,
}


@dataclass(frozen=True)
class _Value:
    """The place of a Relax value: an operand, with the shape as which it is read and the dtype that is stored.

    What is computed as float32 and stored otherwise has a ``format``, and a quantised weight an operand for its
    ``scales``.
    """

    operand: Operand
    shape: tuple[int, ...]
    dtype: str
    format: WeightFormat | None = None
    scales: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.operand,) if self.scales is None else (self.operand, self.scales)

    def viewed(self, shape: tuple[int, ...]) -> _Value:
        return replace(self, shape=shape, format=self.format and replace(self.format, shape=shape))


def lower(
    stage: str,
    module: tvm.IRModule,
    input_names: list[str],
    output_names: list[str],
    weights: list[str],
    precision: WeightPrecision,
    compute: ComputePrecision,
) -> tuple[Stage, dict[str, Kernel]]:
    """Fuse ``module`` and flatten it into a stage and its kernels by id.

    Args:
        stage: name of the stage.
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
        input_names: names of the inputs.
        output_names: names of the results.
        weights: the checkpoint's name of each weight.
        precision: how weights are to be stored.
        compute: what kernels pass on to each other.
    """
    lifted = passes.LiftTransformParams()(module)
    transform = tvm.IRModule({name: f for name, f in lifted.functions.items() if name.name_hint == TRANSFORM})
    rest = tvm.IRModule({name: f for name, f in lifted.functions.items() if name.name_hint != TRANSFORM})
    fuse = tvm.transform.Sequential(
        [
            passes.DecomposeOpsForInference(),
            passes.CanonicalizeBindings(),
            passes.LegalizeOps(_LEGALIZE),
            passes.AnnotateTIROpPattern(),
            passes.FoldConstant(),
            passes.EliminateCommonSubexpr(),
            passes.DeadCodeElimination(["main"]),
            passes.FuseOps(),
            passes.FuseTIR(),
            passes.RewriteDataflowReshape(),
            passes.DeadCodeElimination(["main"]),
        ]
    )
    fused = fuse(rest)
    halves = half_values(fused) if compute is ComputePrecision.F16 else set()
    flat = _Flattener(fused, halves).run(stage, input_names, output_names, precision)
    flat.stage.weight_names = weights
    flat.stage.weight_transform = tvm.ir.save_json(transform)
    return flat.stage, flat.kernels


def _dims(ty: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in ty.shape)


def _spec(name: str, ty: Any) -> TensorSpec:
    return TensorSpec(name, _dims(ty), str(ty.dtype))


class _Flattener:
    """Walks ``main`` once and assigns every value its place; the results are `stage` and `kernels`.

    ``halves`` are the values that are stored as half floats.
    """

    def __init__(self, module: tvm.IRModule, halves: set[relax.Var]) -> None:
        self.module = module
        self.kernels: dict[str, Kernel] = {}
        self._halves = halves
        self._ids: dict[tuple[str, tuple[WeightFormat | None, ...]], str] = {}
        self._values: dict[relax.Var, _Value] = {}
        self._tuples: dict[relax.Var, list[_Value]] = {}
        self._destinations: dict[relax.Var, tuple[relax.Var, int]] = {}
        self._constants: list[np.ndarray] = []
        self._constant_indices: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        self._temps: list[int] = []
        self._calls: list[Call] = []
        self.stage: Stage

    def run(self, name: str, input_names: list[str], output_names: list[str], precision: WeightPrecision) -> _Flattener:
        """Flatten the module into `stage` and `kernels`; return self."""
        main = self.module["main"]
        count = int(main.attrs["num_input"])
        if count != len(input_names):
            raise CaptureError(f"{name}: {count} inputs were captured where {len(input_names)} were expected")
        inputs = [_spec(given, p.ty) for given, p in zip(input_names, main.params[:count], strict=True)]
        for index, (var, spec) in enumerate(zip(main.params[:count], inputs, strict=True)):
            self._values[var] = _Value(Operand("input", index, 0, spec.nbytes), spec.shape, spec.dtype)
        formats = choose_formats(name, self.module, count, precision, SLICE)
        params = self._place_weights(main.params[count:], formats)
        bindings = [binding for block in main.body.blocks for binding in block.bindings]
        self._find_destinations(bindings)
        for binding in bindings:
            self._bind(binding.var, binding.value)
        results = self._result_values(main.body.body)
        outputs = [TensorSpec(n, value.shape, value.dtype) for n, value in zip(output_names, results, strict=True)]
        self._name_outputs(results)
        self._drop_unused_temps()
        self.stage = Stage(name, inputs, outputs, params, self._constants, self._temps, self._calls)
        self.stage.weight_formats = formats
        return self

    def _place_weights(self, weights: Any, formats: list[WeightFormat]) -> list[TensorSpec]:
        """Assign each weight the params that hold it, and return these."""
        params: list[TensorSpec] = []
        for number, (var, weight) in enumerate(zip(weights, formats, strict=True)):
            stored = stored_specs(f"param{number}", weight, str(var.ty.dtype))
            places = [Operand("param", len(params) + part, 0, spec.nbytes) for part, spec in enumerate(stored)]
            params += stored
            plain = weight.precision is WeightPrecision.F32
            self._values[var] = _Value(places[0], weight.shape, stored[0].dtype, None if plain else weight, *places[1:])
        return params

    def _find_destinations(self, bindings: list[Any]) -> None:
        """Find the values that are computed inside a concatenation: operand → (result, byte offset)."""
        for binding in bindings:
            if _marker(binding.value) != CONCAT:
                continue
            offset = 0
            for part in binding.value.args[1].fields:
                self._destinations[part] = (binding.var, offset)
                offset += self._stored(part, part.ty).nbytes

    def _bind(self, var: relax.Var, value: Any) -> None:
        if isinstance(value, relax.Var):
            self._values[var] = self._values[value]
        elif _is_constant(value):
            self._values[var] = self._constant(value)
        elif isinstance(value, relax.Call):
            self._bind_call(var, value)
        elif isinstance(value, relax.Tuple):
            self._tuples[var] = [self._read(item) for item in value.fields]
        elif isinstance(value, relax.TupleGetItem):
            self._values[var] = self._tuples[value.tuple_value][value.index]
        else:
            raise CaptureError(
                f"the fused program holds a {type(value).__name__} ({var.name_hint}), which has no place in a plan"
            )

    def _bind_call(self, var: relax.Var, call: relax.Call) -> None:
        operator = operator_name(call)
        several = isinstance(var.ty, tvm.ir.TupleType)
        if operator == "relax.call_tir":
            arguments = [self._read(argument) for argument in call.args[1].fields]
            if several:
                made = self._tuples[var] = [self._new_temp(self._stored(var, item)) for item in var.ty.fields]
            else:
                made = [self._place(var, self._stored(var, var.ty))]
                self._values[var] = made[0]
            self._call(call.args[0].name_hint, arguments, made)
            return
        if several:
            raise CaptureError(
                f"TVM has no kernel for {operator or call.op}, which has several results", "leave the stage out"
            )
        spec = _spec("", var.ty)
        if operator == "relax.reshape":
            self._values[var] = self._read(call.args[0]).viewed(spec.shape)
        elif _marker(call) == SLICE:
            source, (start,) = self._read(call.args[1].fields[0]), call.args[1].fields[1].values
            item = np.dtype(source.dtype).itemsize
            offset, nbytes = source.operand.offset + int(start) * item, math.prod(spec.shape) * item
            operand = Operand(source.operand.space, source.operand.index, offset, nbytes)
            self._values[var] = replace(source.viewed(spec.shape), operand=operand)
        elif _marker(call) == CONCAT:
            self._concatenate(var, call.args[1].fields)
        else:
            raise CaptureError(f"TVM has no kernel for {operator or call.op}", "leave the stage out")

    def _concatenate(self, var: relax.Var, parts: Any) -> None:
        if var not in self._values:
            self._values[var] = self._new_temp(self._stored(var, var.ty))
        whole, offset = self._values[var].operand, 0
        for part in parts:
            made = self._read(part)
            place = replace(whole, offset=whole.offset + offset, nbytes=made.operand.nbytes)
            if made.operand != place:  # an input, a view, or a part of two concatenations
                self._copy(made, place)
            offset += place.nbytes

    def _copy(self, value: _Value, to: Operand) -> None:
        kernel = self._add_kernel("copy", _copy_function(value.shape, value.dtype))
        self._calls.append(Call(kernel, (value.operand, to)))

    def _place(self, var: relax.Var, spec: TensorSpec) -> _Value:
        """Return where a kernel writes ``var``: a new tensor, or its range of a concatenation."""
        if var not in self._destinations:
            return self._new_temp(spec)
        whole, offset = self._destinations[var]
        if whole not in self._values:
            self._values[whole] = self._new_temp(self._stored(whole, whole.ty))
        into = self._values[whole].operand
        return _computed(Operand(into.space, into.index, into.offset + offset, spec.nbytes), spec)

    def _new_temp(self, spec: TensorSpec) -> _Value:
        self._temps.append(spec.nbytes)
        return _computed(Operand("temp", len(self._temps) - 1, 0, spec.nbytes), spec)

    def _stored(self, var: relax.Var, ty: Any) -> TensorSpec:
        """Return how ``var``, or one of its fields, is stored."""
        spec = _spec("", ty)
        return replace(spec, dtype="float16") if var in self._halves else spec

    def _read(self, value: Any) -> _Value:
        return self._constant(value) if _is_constant(value) else self._values[value]

    def _constant(self, value: Any) -> _Value:
        array = value.value.numpy()
        content = (str(array.dtype), array.shape, array.tobytes())
        index = self._constant_indices.setdefault(content, len(self._constants))
        if index == len(self._constants):
            self._constants.append(array)
        return _Value(Operand("constant", index, 0, array.nbytes), array.shape, str(array.dtype))

    def _call(self, name: str, arguments: list[_Value], results: list[_Value]) -> None:
        formats = tuple(value.format for value in arguments + results)
        key = (name, formats)
        if key not in self._ids:
            func = self.module[name]
            if any(formats):
                func = _with_formats(func, formats[: len(arguments)], formats[len(arguments) :])
            self._ids[key] = self._add_kernel(name, func, len(results))
        operands = [operand for value in arguments + results for operand in value.operands]
        self._calls.append(Call(self._ids[key], tuple(operands)))

    def _add_kernel(self, name: str, func: PrimFunc, outputs: int = 1) -> str:
        kernel = make_kernel(name, func, outputs)
        foreign = sorted({spec.dtype for spec in kernel.params} - WGSL_DTYPES)
        if foreign:
            raise CaptureError(
                f"the kernel {kernel.name} has tensors of {', '.join(foreign)}, which WGSL cannot hold",
                "wgtune/tuner/capture/torch_ops.py needs a converter for the operators in its name",
            )
        self.kernels.setdefault(kernel.id, kernel)
        return kernel.id

    def _result_values(self, result: Any) -> list[_Value]:
        if isinstance(result, relax.Tuple):
            return [self._read(field) for field in result.fields]
        return self._tuples[result] if result in self._tuples else [self._read(result)]

    def _name_outputs(self, results: list[_Value]) -> None:
        """Turn the temps that hold results into outputs; copy results that are no whole temp (an input, a range)."""
        renamed: dict[int, int] = {}
        for index, value in enumerate(results):
            operand = value.operand
            whole = operand.space == "temp" and operand.nbytes == self._temps[operand.index]
            if whole and operand.index not in renamed:
                renamed[operand.index] = index
            else:
                self._copy(value, Operand("output", index, 0, operand.nbytes))
        self._calls = [_with_operands(call, lambda o: _renamed(o, renamed)) for call in self._calls]

    def _drop_unused_temps(self) -> None:
        used = sorted({o.index for call in self._calls for o in call.operands if o.space == "temp"})
        order = {old: new for new, old in enumerate(used)}
        self._temps = [self._temps[old] for old in used]
        self._calls = [
            _with_operands(call, lambda o: replace(o, index=order[o.index]) if o.space == "temp" else o)
            for call in self._calls
        ]


def _computed(place: Operand, spec: TensorSpec) -> _Value:
    """Return the value that a kernel computes and stores as ``spec``."""
    halves = WeightFormat(spec.shape, WeightPrecision.F16) if spec.dtype == "float16" else None
    return _Value(place, spec.shape, spec.dtype, halves)


def _with_formats(
    func: PrimFunc, arguments: tuple[WeightFormat | None, ...], results: tuple[WeightFormat | None, ...]
) -> PrimFunc:
    if any(results) and is_attention(func):
        return attention_of_halves(func)
    return with_stored(func, arguments, results)


def _is_constant(value: Any) -> bool:
    return type(value).__name__ in ("GenericConst", "Constant")


def _marker(value: Any) -> str:
    """Return the name of the marker that ``value`` calls; empty for anything else."""
    if operator_name(value) == "relax.call_dps_packed":
        return value.args[0].global_symbol
    return ""


def _with_operands(call: Call, change: Any) -> Call:
    return Call(call.kernel, tuple(change(operand) for operand in call.operands))


def _renamed(operand: Operand, outputs: dict[int, int]) -> Operand:
    if operand.space == "temp" and operand.index in outputs:
        return Operand("output", outputs[operand.index], operand.offset, operand.nbytes)
    return operand


def _copy_function(shape: tuple[int, ...], dtype: str) -> PrimFunc:
    source = te.placeholder(shape or (1,), dtype=dtype, name="source")
    return te.create_prim_func([source, te.compute(source.shape, lambda *axes: source(*axes), name="copy")])
