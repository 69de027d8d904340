"""Values of a stage's Relax graph, and their replacement: it binds the same variable, so that its uses stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import relax, te


class Graph:
    """The function ``main`` of a module; `module` returns it with the replacements.

    ``weights`` are the variables that depend on weights alone.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        """Read ``main``: its first parameters (attribute ``num_input``) are inputs, the others weights."""
        self._builder = relax.BlockBuilder(module)
        self._main = module["main"]
        bindings = [binding for block in self._main.body.blocks for binding in block.bindings]
        self._values = {binding.var: binding.value for binding in bindings}
        self._results = set(relax.analysis.free_vars(self._main.body.body))
        self._uses: dict[relax.Var, list[relax.Var]] = {}
        self.weights = set(self._main.params[int(self._main.attrs["num_input"]) :])
        for var, value in self._values.items():
            operands = relax.analysis.free_vars(value)
            for operand in operands:
                self._uses.setdefault(operand, []).append(var)
            if operands and self.weights.issuperset(operands):
                self.weights.add(var)
        # Weights come first, so that one value may take the weights of several.
        self.order = sorted(self._values, key=lambda var: var not in self.weights)
        self._before: dict[relax.Var, list[relax.VarBinding]] = {}

    def call(self, value: Any, operator: str) -> relax.Call | None:
        """Return the call of ``operator``, such as ``relax.matmul``, that ``value`` is bound to; None for all else."""
        call = self._values.get(value) if isinstance(value, relax.Var) else None
        return call if isinstance(call, relax.Call) and operator_name(call) == operator else None

    def uses(self, var: relax.Var) -> list[relax.Var] | None:
        """Return the variables that are computed from ``var``; None where it is a result of the stage."""
        return None if var in self._results else self._uses.get(var, [])

    def only_use(self, var: relax.Var) -> relax.Var | None:
        """Return the one variable that is computed from ``var``; None where there is another number of them."""
        uses = self.uses(var)
        return uses[0] if uses is not None and len(uses) == 1 else None

    def value(self, var: relax.Expr) -> Any:
        """Return what ``var`` is bound to; None for parameters and constants."""
        return self._values.get(var) if isinstance(var, relax.Var) else None

    def biased(self, product: relax.Var, axis: int) -> tuple[relax.Var, relax.Var | None]:
        """Return ``product`` plus a bias for each channel of ``axis``, and the bias; itself and None for no bias."""
        addition = self.only_use(product)
        bias = None if addition is None else self._bias(addition, product, axis)
        return (product, None) if addition is None or bias is None else (addition, bias)

    def unbiased(self, result: relax.Expr) -> tuple[relax.Expr, relax.Var | None]:
        """Return what ``result`` is but for a bias for each channel of its last axis, and the bias, None for none."""
        call = self.call(result, "relax.add")
        for product in call.args if call is not None else ():
            bias = self._bias(result, product, -1)
            if bias is not None and self.only_use(product) is not None:
                return product, bias
        return result, None

    def _bias(self, addition: relax.Expr, product: relax.Expr, axis: int) -> relax.Var | None:
        call = self.call(addition, "relax.add")
        if call is None or product in self.weights:
            return None
        bias = call.args[1] if call.args[0].same_as(product) else call.args[0]
        shape, given = shape_of(product), shape_of(bias)
        expected = [1] * len(shape)
        expected[axis] = shape[axis]
        fits = bias in self.weights and [*expected[: len(shape) - len(given)], *given] == expected
        return bias if fits else None

    def name(self, var: relax.Var) -> str:
        """Return the name of the operator that ``var`` is bound to; empty for what is no call."""
        return operator_name(self._values.get(var))

    def before(self, var: relax.Var, value: relax.Expr) -> relax.Var:
        """Bind a new variable to ``value`` just before ``var``."""
        value = self._builder.normalize(value)
        new = relax.DataflowVar("made", value.ty)
        self._before.setdefault(var, []).append(relax.VarBinding(new, value))
        return new

    def replace(self, var: relax.Var, value: relax.Expr) -> None:
        """Bind ``var`` to ``value``, of the same shape and dtype."""
        self._values[var] = self._builder.normalize(value)

    def compute(self, function: Callable[..., te.Tensor], *operands: relax.Expr, name: str) -> relax.Call:
        """Return the call of a kernel that ``function`` describes."""
        return self._builder.call_te(function, *operands, primfunc_name_hint=name)

    def module(self) -> tvm.IRModule:
        """Return the module with the replacements, without what nothing uses any more."""
        bindings: list[relax.VarBinding] = []
        for var in self.order:
            bindings += self._before.get(var, [])
            bindings.append(relax.VarBinding(var, self._values[var]))
        main = self._main
        body = relax.SeqExpr([relax.DataflowBlock(self._without_chains(bindings))], main.body.body)
        module = self._builder.get()
        module["main"] = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        return relax.transform.DeadCodeElimination(["main"])(module)

    def _without_chains(self, bindings: Sequence[relax.VarBinding]) -> list[relax.VarBinding]:
        """Return ``bindings`` with no reshape of a reshape, nor one to the same shape.

        TVM fuses a chain of them to one kernel, which it then does not know for a view.
        """
        sources: dict[relax.Var, relax.Expr] = {}
        made = []
        for binding in bindings:
            value = binding.value
            if operator_name(value) == "relax.reshape":
                source = sources.get(value.args[0], value.args[0])
                sources[binding.var] = source
                same = shape_of(source) == shape_of(binding.var)
                value = source if same else self._builder.normalize(relax.op.reshape(source, shape_of(binding.var)))
            made.append(relax.VarBinding(binding.var, value))
        return made


def operator_name(value: Any) -> str:
    """Return the name of the operator that ``value`` calls; empty for anything else."""
    return getattr(value.op, "name", "") if isinstance(value, relax.Call) else ""


def shape_of(value: relax.Expr) -> tuple[int, ...]:
    """Return the shape of a tensor."""
    return tuple(int(extent) for extent in value.ty.shape)


def is_pointwise(call: relax.Call) -> bool:
    """Return whether a convolution is a product over the channels of each pixel."""
    attrs = call.attrs
    moves = [*attrs.padding, *(stride - 1 for stride in attrs.strides)]
    return (
        shape_of(call.args[1])[2:] == (1, 1)
        and not any(int(move) for move in moves)
        and int(attrs.groups) == 1
        and (attrs.data_layout, attrs.kernel_layout) == ("NCHW", "OIHW")
    )
