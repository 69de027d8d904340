"""A kernel's identity: the same for what differs in names, another for what differs in meaning."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx, topi
from tvm.tirx import PrimFunc

from wgtune.database.tvm.kernel_identity import canonical_text, kernel_id, with_canonical_names
from wgtune.support.errors import CaptureError

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
OPERATORS = ["add", "subtract", "multiply", "maximum", "minimum"]


@dataclass(frozen=True)
class Recipe:
    """A small kernel: a contraction or an elementwise operator, then a scaling by a constant."""

    rows: int = 4
    columns: int = 6
    dtype: str = "float32"
    operator: str = "add"
    constant: float = 1.5
    reduce: bool = False
    transposed: bool = False

    def build(self) -> PrimFunc:
        a = te.placeholder((self.rows, self.columns), self.dtype, name="a")
        b = te.placeholder((self.rows, self.columns), self.dtype, name="b")
        if self.reduce:
            k = te.reduce_axis((0, self.columns), "k")
            c = te.compute((self.rows, self.rows), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), name="c")
        elif self.operator == "subtract" and self.transposed:
            c = topi.subtract(b, a)
        else:
            c = getattr(topi, self.operator)(a, b)
        factor = tirx.const(self.constant, self.dtype)
        order = (lambda i, j: c[j, i] * factor) if self.transposed else (lambda i, j: c[i, j] * factor)
        shape = tuple(c.shape)[::-1] if self.transposed else tuple(c.shape)
        return te.create_prim_func([a, b, te.compute(shape, order, name="d")])


RECIPES = st.builds(
    Recipe,
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    dtype=st.sampled_from(["float32", "float16"]),
    operator=st.sampled_from(OPERATORS),
    constant=st.sampled_from([0.5, 1.5, 0.1, -2.0]),
    reduce=st.booleans(),
    transposed=st.booleans(),
)


def renamed(func: PrimFunc, names: list[str]) -> PrimFunc:
    """``func`` with every variable, buffer, block and the function itself called something else."""
    graph = json.loads(tvm.ir.save_json(func.with_attr("global_symbol", names[0])))
    nodes = graph["nodes"]
    for count, node in enumerate(list(nodes)):
        field = {"ir.Var": "name", "s_tir.SBlock": "name_hint"}.get(node["type"])
        if field and nodes[node["data"][field]]["data"] != "root":
            nodes.append({"type": "ffi.String", "data": f"{names[count % len(names)]}_{count}"})
            node["data"][field] = len(nodes) - 1
    return tvm.ir.load_json(json.dumps(graph))


@settings(max_examples=40, deadline=None)
@given(recipe=RECIPES, names=st.lists(NAMES, min_size=1, max_size=6))
def test_names_do_not_matter(recipe: Recipe, names: list[str]) -> None:
    func = recipe.build()
    other = renamed(func, names)
    assert other.script() != func.script()
    assert canonical_text(other) == canonical_text(func)
    # Equal ids mean equal functions, so that a schedule's trace and the emitted code fit both.
    assert tvm.ir.save_json(with_canonical_names(other)) == tvm.ir.save_json(with_canonical_names(func))


@settings(max_examples=60, deadline=None)
@given(recipe=RECIPES, data=st.data())
def test_another_meaning_is_another_kernel(recipe: Recipe, data: st.DataObject) -> None:
    change = data.draw(st.sampled_from(["rows", "columns", "dtype", "constant", "reduce", "transposed", "operator"]))
    if change == "operator":
        recipe = replace(recipe, reduce=False)
    new = {
        "rows": recipe.rows + 1,
        "columns": recipe.columns + 1,
        "dtype": "float16" if recipe.dtype == "float32" else "float32",
        # One unit in the last place of a float32 is another constant too.
        "constant": recipe.constant * (1 + 2**-20),
        "reduce": not recipe.reduce,
        "transposed": not recipe.transposed,
        "operator": OPERATORS[(OPERATORS.index(recipe.operator) + 1) % len(OPERATORS)],
    }[change]
    if change == "constant" and recipe.dtype == "float16":
        new = recipe.constant * 2
    other = replace(recipe, **{change: new})
    assert kernel_id(other.build()) != kernel_id(recipe.build())


@settings(max_examples=20, deadline=None)
@given(recipe=RECIPES)
def test_canonical_names_change_nothing_but_names(recipe: Recipe) -> None:
    func = recipe.build()
    named = with_canonical_names(func)
    assert canonical_text(named) == canonical_text(func)
    assert [param.name for param in named.params] == ["b0", "b1", "b2"]
    assert named.attrs["global_symbol"] == "main"
    assert tvm.ir.save_json(with_canonical_names(named)) == tvm.ir.save_json(named)


def test_the_hint_for_fusion_is_not_part_of_a_kernel_but_other_attributes_are() -> None:
    func = Recipe().build()
    assert kernel_id(func.with_attr("op_pattern", 4)) == kernel_id(func)
    assert kernel_id(func.with_attr("tirx.noalias", False)) != kernel_id(func)


def test_scopes_annotations_predicates_and_axis_kinds_are_part_of_a_kernel() -> None:
    func = Recipe(reduce=True).build()
    texts = {canonical_text(func)}
    graph = json.loads(tvm.ir.save_json(func))
    for node in graph["nodes"]:
        if node.get("data") == "global":
            node["data"] = "shared"
    texts.add(canonical_text(tvm.ir.load_json(json.dumps(graph))))
    for change in (lambda s, b: s.annotate(b, "note", 1), lambda s, b: s.unroll(s.get_loops(b)[0])):
        schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": func}))
        change(schedule, schedule.get_sblock("c"))
        texts.add(canonical_text(schedule.mod["main"]))
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": func}))
    schedule.split(schedule.get_loops(schedule.get_sblock("c"))[0], [None, 3])
    texts.add(canonical_text(schedule.mod["main"]))
    assert len(texts) == 5


def test_calls_conditions_and_integers_have_a_form() -> None:
    x = te.placeholder((8, 8), "float32", name="x")
    ids = te.placeholder((8,), "int32", name="ids")
    value = te.compute(
        (8, 8),
        lambda i, j: tirx.if_then_else(
            tirx.all(i > 1, j < 3),
            tirx.exp(x[ids[i], j // 2]),
            tirx.Select(j > 4, x[i, j % 2], tirx.const(2.5, "float32")),
        ),
    )
    text = canonical_text(te.create_prim_func([x, ids, value]))
    for word in ("exp", "if_then_else", "select", "floordiv", "floormod", "int32"):
        assert word in text


def test_an_unknown_node_is_an_error_and_not_skipped() -> None:
    func = Recipe().build()
    with pytest.raises(CaptureError, match="no canonical form"):
        canonical_text(func.with_attr("target", tvm.target.Target("llvm")))
