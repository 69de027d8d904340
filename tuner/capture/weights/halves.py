"""Which values kernels pass on to each other as half floats, and the kernels that read and write them so.

Every float32 value between two kernels is, but for

- inputs and results of the stage, and what is a view of them or they of it;
- what a sine or a cosine is taken of: a timestep of 999 would lose its fraction;
- masks of attention in one kernel, and all of its tensors where one of them is none.

Kernels compute in float32: what they read is converted before, and what they write after. A value beyond 65504 becomes
infinite, which shows in the picture; nothing is clamped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.tirx import PrimFunc

from ...schedule_rules.attention import find_attention
from ...schedule_rules.attention.definition import attention_func
from ..rewrites.graph import operator_name
from ..rewrites.markers import CONCAT

_TRIGONOMETRIC = frozenset({"tirx.sin", "tirx.cos"})

_VIEWS = frozenset({"relax.reshape", "relax.call_dps_packed"})


def half_values(module: tvm.IRModule) -> set[relax.Var]:
    """Return the variables of ``main`` in a fused module that are to be stored as half floats."""
    main = module["main"]
    related = _Related()
    related.keep(main.params)
    made: list[relax.Var] = []
    for block in main.body.blocks:
        for binding in block.bindings:
            var, value = binding.var, binding.value
            name = operator_name(value) if isinstance(value, relax.Call) else ""
            if name == "relax.call_tir":
                made.append(var)
                func, operands = module[value.args[0].name_hint], list(value.args[1].fields)
                related.join([var])
                if is_attention(func):
                    related.join([var, *operands[:3]])
                    related.keep(operands[3:])
                elif _is_trigonometric(func):
                    related.keep(operands)
            elif not isinstance(value, relax.Call) or name in _VIEWS:
                related.join([var, *_operands(value)])
    related.keep(_operands(main.body.body))
    related.keep(var for var in made if not _can_be_half(var))
    return {var for var in related.members() if not related.kept(var)}


def is_attention(func: PrimFunc) -> bool:
    """Return whether a fused function is attention in one kernel."""
    return find_attention(tvm.IRModule({"main": func})) is not None


def attention_of_halves(func: PrimFunc) -> PrimFunc:
    """Return attention in one kernel over half floats."""
    found = find_attention(tvm.IRModule({"main": func}))
    assert found is not None
    return attention_func(replace(found, dtype="float16"))


def _is_trigonometric(func: PrimFunc) -> bool:
    called: set[str] = set()
    walk: Callable[[Any], None] = lambda call: called.add(getattr(call.op, "name", ""))  # noqa: E731
    tvm_ffi.structural_walk(func.body, [(tvm.ir.Call, walk)])
    return bool(called & _TRIGONOMETRIC)


def _operands(value: Any) -> list[Any]:
    """Return the values of which ``value`` is a view, a tuple or a part."""
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    if isinstance(value, relax.TupleGetItem):
        return [value.tuple_value]
    if not isinstance(value, relax.Call):
        return [value]
    if operator_name(value) == "relax.reshape":
        return [value.args[0]]
    parts = list(value.args[1].fields)
    return parts if value.args[0].global_symbol == CONCAT else parts[:1]


def _can_be_half(var: relax.Var) -> bool:
    types = list(var.ty.fields) if isinstance(var.ty, tvm.ir.TupleType) else [var.ty]
    return all(str(ty.dtype) == "float32" and len(ty.shape) > 0 for ty in types)


class _Related:
    """Values that are stored alike, because they are views of each other; some are kept as they are."""

    def __init__(self) -> None:
        self._sets: dict[relax.Var, set[relax.Var]] = {}
        self._kept: set[relax.Var] = set()

    def join(self, values: Iterable[Any]) -> None:
        """Store ``values`` alike; what is no variable, such as a constant, keeps the others as they are."""
        values = list(values)
        joined: set[relax.Var] = set()
        for value in values:
            if isinstance(value, relax.Var):
                joined |= self._sets.get(value, {value})
        for var in joined:
            self._sets[var] = joined
        if any(not isinstance(value, relax.Var) for value in values):
            self.keep(joined)

    def keep(self, values: Iterable[Any]) -> None:
        """Store ``values`` as they are."""
        for value in values:
            if isinstance(value, relax.Var):
                self._sets.setdefault(value, {value})
                self._kept.add(value)

    def members(self) -> list[relax.Var]:
        return list(self._sets)

    def kept(self, var: relax.Var) -> bool:
        return not self._kept.isdisjoint(self._sets[var])
