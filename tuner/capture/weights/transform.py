"""From a checkpoint to a stage's weights, one at a time: each weight has a function of its own, run on the CPU.

Capture lifts what it can compute from weights alone (transposes, reshapes, look-ups, casts) into one Relax function
over all tensors of the checkpoint. Here it is cut into a function per result, so that only one result's tensors are in
memory. Results of the same shape that are computed alike share a function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax
from tvm_ffi import StructuralKey

from ....database.tvm.graph_json import load_json
from ....support.errors import CaptureError
from ...ir import Stage, TensorSpec
from .formats import encode

if TYPE_CHECKING:
    import torch

TRANSFORM = "main_transform_params"
"""Name of the function that computes weights from the checkpoint's tensors (`passes.LiftTransformParams`)."""

_ADAPTER = re.compile(r"\.(base_layer|lora_[AB])\.")
"""Part of a tensor's name in a model that PEFT has wrapped layers of."""

Weights = Mapping[str, "torch.Tensor | np.ndarray"]
"""A checkpoint's tensors by canonical name; `Checkpoint` reads them on access."""


def check_weights(stage: Stage, weights: Weights) -> None:
    """Raise CaptureError where tensors of ``stage`` are missing, or have another shape than its configuration says."""
    specs = _specs(stage)
    missing = [spec.name for spec in specs if spec.name not in weights]
    if missing:
        if any(_ADAPTER.search(name) for name in weights):
            raise CaptureError(
                f"the checkpoint of {stage.name} holds an adapter (LoRA) that is not merged into its weights",
                "load the pipeline with diffusers, then pipe.fuse_lora(); pipe.unload_lora_weights(); "
                "pipe.save_pretrained(folder)",
            )
        listed = ", ".join(missing[:2]) + (f" and {len(missing) - 2} more" if len(missing) > 2 else "")
        raise CaptureError(
            f"the checkpoint of {stage.name} lacks {listed}", "the weights must belong to the captured configuration"
        )
    for spec in specs:
        _check_shape(stage.name, tuple(weights[spec.name].shape), spec)


def transform_weights(stage: Stage, weights: Weights) -> Iterator[np.ndarray]:
    """Yield the values of ``stage.params`` in order; each weight is computed and encoded when it is asked for.

    Args:
        stage: the stage whose parameters are wanted.
        weights: the checkpoint.

    Raises:
        CaptureError: see `check_weights`; while iterating, where a weight is too large for its format.
    """
    check_weights(stage, weights)
    return _transformed(stage, weights)


@dataclass(frozen=True)
class _Result:
    """One weight of the stage: the name of its function, and the indices of the tensors that the function takes."""

    function: str
    arguments: tuple[int, ...]


def _transformed(stage: Stage, weights: Weights) -> Iterator[np.ndarray]:
    if not stage.params:
        return
    specs = _specs(stage)
    module, results = _cut(_transform(stage))
    # Pooled memory would keep a buffer of every size that was ever needed.
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu(), memory_cfg="naive")
    for result, weight in zip(results, stage.weight_formats, strict=True):
        tensors = [_tvm_tensor(weights[specs[i].name], specs[i]) for i in result.arguments]
        value = np.from_dlpack(machine[result.function](*tensors))
        del tensors
        yield from encode(weight, value.reshape(weight.shape))


def _transform(stage: Stage) -> relax.Function:
    return load_json(stage.weight_transform)[TRANSFORM]


def _specs(stage: Stage) -> list[TensorSpec]:
    """Return the checkpoint's tensors as the transform expects them, in order."""
    if not stage.params:
        return []
    types = _transform(stage).params[0].ty.fields
    return [
        TensorSpec(name, tuple(int(extent) for extent in ty.shape), str(ty.dtype))
        for name, ty in zip(stage.weight_names, types, strict=True)
    ]


def _cut(transform: relax.Function) -> tuple[tvm.IRModule, list[_Result]]:
    """Return a module with a function for each way in which a result is computed, and the results in order."""
    (block,) = transform.body.blocks
    values = {binding.var: binding.value for binding in block.bindings}
    names: dict[StructuralKey, str] = {}
    results = []
    for wanted in _fields(transform.body.body, values):
        function, arguments = _slice(transform.params[0], values, wanted)
        key = StructuralKey(function)  # type: ignore[call-arg]  # typed with a field that only it sets
        results.append(_Result(names.setdefault(key, f"weight{len(names)}"), arguments))
    functions = {name: key.key.with_attr("global_symbol", name) for key, name in names.items()}
    return tvm.IRModule(functions), results


def _fields(result: relax.Expr, values: Mapping[relax.Var, relax.Expr]) -> Sequence[relax.Expr]:
    while isinstance(result, relax.Var):
        result = values[result]
    return result.fields


def _slice(
    whole: relax.Var, values: Mapping[relax.Var, relax.Expr], wanted: relax.Expr
) -> tuple[relax.Function, tuple[int, ...]]:
    """Return the function that computes ``wanted`` alone, and which fields of the tuple ``whole`` it takes."""
    needed: dict[relax.Var, relax.Expr] = {}
    taken: dict[int, relax.Var] = {}

    def visit(expression: relax.Expr) -> None:
        for var in relax.analysis.free_vars(expression):
            if var in needed:
                continue
            value = values[var]
            if isinstance(value, relax.TupleGetItem) and value.tuple_value.same_as(whole):
                value = taken.setdefault(int(value.index), relax.Var(f"tensor{len(taken)}", var.ty))
            else:
                visit(value)
            needed[var] = value  # behind all that it uses

    visit(wanted)
    block = relax.DataflowBlock([relax.VarBinding(var, value) for var, value in needed.items()])
    function = relax.Function(list(taken.values()), relax.SeqExpr([block], wanted), wanted.ty, is_pure=True)
    # Variables belong to one function.
    return relax.utils.copy_with_new_vars(function), tuple(taken)


def _check_shape(stage: str, shape: tuple[int, ...], spec: TensorSpec) -> None:
    # Old checkpoints store the decoder's attention as 1 × 1 convolutions: the same numbers with two more axes.
    if math.prod(shape) != math.prod(spec.shape) or [d for d in shape if d != 1] != [d for d in spec.shape if d != 1]:
        raise CaptureError(
            f"{stage}: {spec.name} is {shape} in the checkpoint, the configuration says {spec.shape}",
            "the weights must belong to the captured configuration",
        )


def _tvm_tensor(weight: torch.Tensor | np.ndarray, spec: TensorSpec) -> Any:
    import torch

    tensor = torch.from_numpy(weight) if isinstance(weight, np.ndarray) else weight
    tensor = tensor.detach().to(getattr(torch, spec.dtype)).reshape(spec.shape).contiguous()
    # TVM shares memory that is aligned to 64 bytes; tensors of a mapped file begin anywhere.
    return tvm.runtime.from_dlpack(tensor) if tensor.data_ptr() % 64 == 0 else tvm.runtime.tensor(tensor.numpy())
