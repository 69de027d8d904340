"""Which weights are stored in which format, and the kernels that decode them where they read them.

The rule, for a model with f16, q8 or q4 weights:

- Biases, the factors of norms, and what else is no matrix (at most one axis longer than 1) stay float32: less than a
  thousandth of a model.
- Matrices and filters are quantised where products and convolutions read them: sums of whole groups, and at least
  `_LEAST_RESULTS` results. So the first and the last convolution, which have few channels, are not.
- With q4, the image decoder's are q8: nothing behind it evens its errors out.
- All others, such as embeddings, are f16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.s_tir import SBlock
from tvm.tirx import PrimFunc

from ....support.enums import WeightPrecision
from ...ir import WeightFormat
from .formats import can_quantise, decoder, stored_specs

_LEAST_RESULTS = 16

_DECODER = "vae"


@dataclass
class _Uses:
    """How a weight is used: as parameters of functions, whole or as views; ``other``: in another way too."""

    whole: set[tuple[str, int]] = field(default_factory=set)
    view: bool = False
    other: bool = False


def choose_formats(
    stage: str, module: tvm.IRModule, inputs: int, precision: WeightPrecision, range_marker: str
) -> list[WeightFormat]:
    """Return the format of each weight of a stage.

    Args:
        stage: name of the stage.
        module: a fused module; its function ``main`` takes the inputs, then the weights.
        inputs: number of the inputs.
        precision: how weights are to be stored.
        range_marker: name of the marked call that is a range of a value, without a copy.
    """
    main = module["main"]
    weights = list(main.params[inputs:])
    uses = _uses(main, weights, range_marker)
    return [_format(stage, module, weight, uses[weight], precision) for weight in weights]


def _format(stage: str, module: tvm.IRModule, weight: Any, uses: _Uses, precision: WeightPrecision) -> WeightFormat:
    shape = tuple(int(extent) for extent in weight.ty.shape)
    matrix = sum(extent > 1 for extent in shape) > 1 and str(weight.ty.dtype) == "float32" and not uses.other
    if precision is WeightPrecision.F32 or not matrix:
        return WeightFormat(shape, WeightPrecision.F32)
    if precision is not WeightPrecision.F16 and not uses.view and uses.whole:
        found = {_summed_axes(module[function], position) for function, position in uses.whole}
        terms = found.pop() if len(found) == 1 else None
        if terms is not None:
            chosen = WeightPrecision.Q8 if stage == _DECODER else precision
            quantised = WeightFormat(shape, chosen, terms)
            outer, _, inner = quantised.extents
            if can_quantise(quantised) and outer * inner >= _LEAST_RESULTS:
                return quantised
    return WeightFormat(shape, WeightPrecision.F16)


def _uses(main: relax.Function, weights: list[Any], range_marker: str) -> dict[Any, _Uses]:
    uses = {weight: _Uses() for weight in weights}
    views: dict[Any, Any] = {}

    def others(value: Any) -> None:
        for used in relax.analysis.free_vars(value):
            if root := views.get(used, used if used in uses else None):
                uses[root].other = True

    for block in main.body.blocks:
        for binding in block.bindings:
            value = binding.value
            name = getattr(value.op, "name", "") if isinstance(value, relax.Call) else ""
            if name == "relax.call_tir":
                for position, argument in enumerate(value.args[1].fields):
                    if argument in uses:
                        uses[argument].whole.add((value.args[0].name_hint, position))
                    elif argument in views:
                        uses[views[argument]].view = True
                continue
            viewed = _viewed(value, name, range_marker)
            if viewed is not None and (viewed in uses or viewed in views):
                views[binding.var] = views.get(viewed, viewed)
            else:
                others(value)
    others(main.body.body)
    return uses


def _viewed(value: Any, name: str, range_marker: str) -> Any:
    """Return the variable of which ``value`` is a view; None where it is none."""
    if isinstance(value, relax.Var):
        return value
    if name == "relax.reshape":
        return value.args[0]
    if name == "relax.call_dps_packed" and value.args[0].global_symbol == range_marker:
        return value.args[1].fields[0]
    return None


def _summed_axes(func: PrimFunc, position: int) -> tuple[int, int] | None:
    """Return the neighbouring axes of a parameter over which ``func`` sums products with it, None for other uses."""
    param = func.params[position]
    blocks: list[Any] = []
    tvm_ffi.structural_walk(func.body, [(SBlock, blocks.append)])
    readers = [block for block in blocks if any(region.source.same_as(param) for region in block.reads)]
    readers = [block for block in readers if block.iter_vars]
    if len(readers) != 1 or readers[0].init is None or not isinstance(readers[0].body, tirx.BufferStore):
        return None
    block = readers[0]
    loads: list[Any] = []
    tvm_ffi.structural_walk(block.body.value, [(tvm.ir.TensorLoad, loads.append)])
    own = [load for load in loads if load.source.same_as(param)]
    if type(block.body.value).__name__ != "Add" or type(block.body.value.b).__name__ != "Mul" or len(own) != 1:
        return None
    summed = [axis.var for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
    spatial = [axis.var for axis in block.iter_vars if axis.iter_type == tirx.IterVar.DataPar]
    kinds = []
    for index, extent in zip(own[0].indices, param.ty.shape, strict=True):
        known = [any(index.same_as(axis) for axis in axes) for axes in (summed, spatial)]
        if not any(known) and int(extent) > 1:
            return None
        kinds.append(known[0])
    axes = [number for number, is_summed in enumerate(kinds) if is_summed]
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    return axes[0], axes[-1] + 1


def with_stored(
    func: PrimFunc, formats: Sequence[WeightFormat | None], results: Sequence[WeightFormat | None]
) -> PrimFunc:
    """Return ``func`` with the parameters that have a format replaced by what is stored, decoded before their use.

    Args:
        func: a fused function without a schedule.
        formats: the format of each parameter that is read; they come first.
        results: the format of each parameter that is written, half floats or none.
    """
    builder = relax.BlockBuilder()
    name, outputs = "with_stored", len(results)
    arguments: list[Any] = []
    pieces: list[list[Any]] = []
    for number, (param, weight) in enumerate(zip(func.params[: len(func.params) - outputs], formats, strict=True)):
        if weight is None:
            types = [relax.TensorType(param.ty.shape, str(param.ty.dtype))]
        else:
            types = [relax.TensorType(spec.shape, spec.dtype) for spec in stored_specs("stored", weight)]
        pieces.append([relax.Var(f"a{number}_{part}", ty) for part, ty in enumerate(types)])
        arguments += pieces[-1]
    index = str(func.params[0].ty.shape[0].ty.dtype) if func.params[0].ty.shape else "int64"
    types = [relax.TensorType(param.ty.shape, str(param.ty.dtype)) for param in func.params[-outputs:]]
    with builder.function(name, arguments, attrs={"Primitive": 1}, private=True):
        with builder.dataflow():
            values = [
                stored[0] if weight is None else builder.emit(_decoded(builder, weight, stored, index))
                for stored, weight in zip(pieces, formats, strict=True)
            ]
            inner = builder.add_func(func.without_attr("global_symbol"), "inner")
            made = builder.emit(relax.op.call_tir(inner, relax.Tuple(values), types if outputs > 1 else types[0]))
            parts = [relax.TupleGetItem(made, number) for number in range(outputs)] if outputs > 1 else [made]
            kept = [
                part if stored is None else builder.emit(_halved(builder, stored, part, index))
                for part, stored in zip(parts, results, strict=True)
            ]
            result = builder.emit_output(kept[0] if outputs == 1 else relax.Tuple(kept))
        builder.emit_func_output(result)
    given = [relax.Var(f"x{number}", argument.ty) for number, argument in enumerate(arguments)]
    with builder.function("main", given):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(builder.get().get_global_var(name), given))
        builder.emit_func_output(result)
    return relax.transform.FuseTIR()(builder.get())[name]


def _decoded(builder: relax.BlockBuilder, weight: WeightFormat, stored: list[Any], index: str) -> relax.Expr:
    function = builder.add_func(decoder(weight, index), "decode")
    return relax.op.call_tir(function, relax.Tuple(stored), relax.TensorType(weight.shape, "float32"))


def _halved(builder: relax.BlockBuilder, stored: WeightFormat, value: relax.Expr, index: str) -> relax.Expr:
    shape = [tirx.IntImm(index, extent) for extent in stored.shape]
    given = te.placeholder(shape, "float32", "value")
    halves = te.compute(shape, lambda *place: given(*place).astype("float16"), name="halve")
    function = builder.add_func(te.create_prim_func([given, halves]), "halve")
    return relax.op.call_tir(function, relax.Tuple([value]), relax.TensorType(stored.shape, "float16"))
