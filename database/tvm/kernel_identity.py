"""The identity of a kernel: its TensorIR as canonical text, and the SHA-256 of that.

TVM's own structural hash changes whenever TVM's IR does, which makes records unreadable. This module writes the
text by a walk of its own: variables and buffers are numbered in order of appearance, every name and source location
is left out, everything that changes what is computed is kept. A node that this module does not know is an error and
never skipped, and so is a field that a later TVM adds to a node.

Names still matter after that: a trace finds its blocks by name, and the emitted code contains the names of buffers and
variables. TVM derives names from the tensors of the model (``lv41_sum``). `with_canonical_names` derives them from the
function's structure instead, so that equal ids mean equal functions, and a trace applies to every function of its id.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import tvm
from tvm.tirx import PrimFunc

from ...support.errors import CaptureError
from .graph_json import load_json

FUNCTION_ATTRIBUTES_DROPPED = frozenset({"global_symbol", "op_pattern"})
"""The function's name, and a hint for fusion that means nothing afterwards."""

_BINARY = ("a", "b")
_NODES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # type key: our word, fields kept in this order, fields dropped because they follow from the kept ones
    **{
        f"prim.{name}": (name.lower(), _BINARY, ("ty",))
        for name in ("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max")
    },
    **{f"prim.{name}": (name.lower(), _BINARY, ("ty",)) for name in ("EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or")},
    **{
        f"prim.{name}": (word, _BINARY, ("ty",))
        for name, word in {
            "BitwiseAnd": "bitand",
            "BitwiseOr": "bitor",
            "BitwiseXor": "bitxor",
            "LShift": "lshift",
            "RShift": "rshift",
        }.items()
    },
    "prim.Not": ("not", ("a",), ("ty",)),
    "prim.Select": ("select", ("condition", "true_value", "false_value"), ("ty",)),
    "prim.Cast": ("cast", ("ty", "value"), ()),
    "prim.Let": ("let", ("var", "value", "body"), ("ty",)),
    "prim.Ramp": ("ramp", ("base", "stride", "lanes"), ("ty",)),
    "prim.Broadcast": ("broadcast", ("value", "lanes"), ("ty",)),
    "prim.Shuffle": ("shuffle", ("vectors", "indices"), ("ty",)),
    "ir.IntImm": ("int", ("ty", "value"), ()),
    "ir.FloatImm": ("float", ("ty", "value"), ()),
    "ir.StringImm": ("string", ("value",), ("ty",)),
    "ir.Call": ("call", ("ty", "op", "args", "attrs", "ty_args"), ()),
    "ir.Op": (
        "op",
        ("name",),
        ("ty", "description", "arguments", "attrs_type_key", "num_inputs", "support_level"),
    ),
    "ir.TensorLoad": ("load", ("source", "indices"), ("ty",)),
    "ir.TensorRegion": ("region", ("source", "region"), ("ty",)),
    "ir.Range": ("range", ("min", "extent"), ()),
    "ir.PrimType": ("type", ("dtype",), ()),
    "ir.PointerType": ("pointer", ("element_type", "storage_scope"), ()),
    "ir.TupleType": ("tuple", ("fields",), ()),
    "ir.DictAttrs": ("attrs", ("__dict__",), ()),
    "tirx.BufferType": (
        "buffer",
        (
            "dtype",
            "storage_scope",
            "shape",
            "strides",
            "elem_offset",
            "data_alignment",
            "offset_factor",
            "layout",
            "allocated_addr",
        ),
        (),
    ),
    "tirx.IterVar": ("axis", ("var", "dom", "iter_type", "thread_tag"), ()),
    "tirx.For": ("for", ("loop_var", "min", "extent", "kind", "thread_binding", "annotations", "step", "body"), ()),
    "tirx.While": ("while", ("condition", "body"), ()),
    "tirx.Bind": ("bind", ("var", "value"), ()),
    "tirx.BufferStore": ("store", ("buffer", "value", "indices"), ()),
    "tirx.AllocBuffer": ("alloc", ("buffer", "annotations"), ()),
    "tirx.DeclBuffer": ("declare", ("buffer", "data"), ()),
    "tirx.AttrStmt": ("attribute", ("node", "attr_key", "value", "body"), ()),
    "tirx.SeqStmt": ("sequence", ("seq",), ()),
    "tirx.IfThenElse": ("if", ("condition", "then_case", "else_case"), ()),
    "tirx.Evaluate": ("evaluate", ("value",), ()),
    "s_tir.SBlock": (
        "block",
        ("iter_vars", "reads", "writes", "alloc_buffers", "match_buffers", "annotations", "init", "body"),
        ("name_hint",),
    ),
    "s_tir.SBlockRealize": ("realize", ("iter_values", "predicate", "block"), ()),
    "s_tir.MatchBufferRegion": ("match", ("buffer", "source"), ()),
}
_LOCATION = "span"


def canonical_text(func: PrimFunc) -> str:
    """Return ``func`` as canonical text; raises CaptureError at a node that has no canonical form."""
    return _Writer().function(func)


def kernel_id(func: PrimFunc) -> str:
    """Return the SHA-256 of `canonical_text`, in hexadecimal."""
    return hashlib.sha256(canonical_text(func).encode()).hexdigest()


def with_canonical_names(func: PrimFunc) -> PrimFunc:
    """Return ``func`` with buffers b0, b1, …, other variables v0, v1, …, blocks block0, block1, …, itself ``main``.

    The parameters come first, so parameter n is bn. Only names and the hint for fusion change. Search and baselines
    start from this function, so these names are part of every stored program digest: another prefix would move them.
    """
    func = func.without_attr("op_pattern").with_attr("global_symbol", "main")
    graph = json.loads(tvm.ir.save_json(func))
    nodes = graph["nodes"]
    counts = {"b": 0, "v": 0, "block": 0}

    def rename(node: dict[str, Any], field: str, prefix: str) -> None:
        nodes.append({"type": "ffi.String", "data": f"{prefix}{counts[prefix]}"})
        node["data"][field] = len(nodes) - 1
        counts[prefix] += 1

    # The graph lists a node behind its operands: an order that follows from the structure alone.
    for node in list(nodes):
        if node["type"] == "ir.Var":
            is_buffer = nodes[node["data"]["ty"]]["type"] == "tirx.BufferType"
            rename(node, "name", "b" if is_buffer else "v")
        elif node["type"] == "s_tir.SBlock" and nodes[node["data"]["name_hint"]]["data"] != "root":
            rename(node, "name_hint", "block")
    return load_json(json.dumps(graph, separators=(",", ":")))


class _Writer:
    """Writes nodes as parenthesised lists, numbering variables as they are first met."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def function(self, func: PrimFunc) -> str:
        params = " ".join(self.node(param) for param in func.params)
        attributes = dict(func.attrs.items()) if func.attrs else {}
        kept = self._map({key: value for key, value in attributes.items() if key not in FUNCTION_ATTRIBUTES_DROPPED})
        return f"(function [{params}] {self.node(func.ret_type)} {kept}\n{self.node(func.body)})\n"

    def node(self, value: Any) -> str:
        if value is None:
            return "none"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(value, int):
            return str(int(value))
        if isinstance(value, float):
            return float(value).hex()
        key = _type_key(value)
        if key == "ffi.Array":
            return "[" + " ".join(self.node(item) for item in value) + "]"
        if key == "ffi.Map":
            return self._map(dict(value.items()))
        if key == "ir.Var":
            return self._variable(value)
        if key not in _NODES:
            raise CaptureError(
                f"a kernel holds a {key}, which has no canonical form",
                "this version of TVM makes kernels that wgtune does not know; install the pinned one",
            )
        word, kept, _ = _NODES[key]
        _check_fields(key, type(value))
        separator = "\n" if word in ("for", "sequence", "block") else " "
        return f"({word}{separator}{separator.join(self._field(getattr(value, name)) for name in kept)})"

    def _field(self, value: Any) -> str:
        # A dtype is a plain value of TVM's own class, and prints as PyTorch's and NumPy's do: float32.
        return str(value) if type(value).__name__ == "dtype" else self.node(value)

    def _map(self, items: dict[str, Any]) -> str:
        return "{" + " ".join(f"{key}={self.node(items[key])}" for key in sorted(items)) + "}"

    def _variable(self, variable: Any) -> str:
        if variable in self._numbers:
            return f"v{self._numbers[variable]}"
        number = self._numbers[variable] = len(self._numbers)
        return f"(v{number} {self.node(variable.ty)})"


def _type_key(value: Any) -> str:
    info = getattr(type(value), "__tvm_ffi_type_info__", None)
    return info.type_key if info is not None else type(value).__name__


_checked: set[str] = set()


def _check_fields(key: str, cls: type) -> None:
    """Check that TVM's node has only the known fields: to drop one could equate two kernels. Raises CaptureError."""
    if key in _checked:
        return
    fields: set[str] = set()
    info = cls.__tvm_ffi_type_info__  # type: ignore[attr-defined]
    while info is not None:
        fields.update(field.name for field in info.fields or ())
        info = info.parent_type_info
    _, kept, dropped = _NODES[key]
    unknown = fields - {_LOCATION} - set(kept) - set(dropped)
    if unknown:
        raise CaptureError(
            f"TVM's {key} has fields without a canonical form: {', '.join(sorted(unknown))}",
            "this version of TVM is newer than wgtune knows; install the pinned one",
        )
    _checked.add(key)
