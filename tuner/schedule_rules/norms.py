"""Softmax, layer norm and group norm, with what is computed before and after them: which kernels are which."""

from __future__ import annotations

from tvm import IRModule
from tvm.s_tir import Schedule

from .row_reduction import find_row_kernel, row_space
from .rule import Limits, RuleSpace


def softmax(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a kernel that reduces each row to its greatest element, then sums; None for others.

    The exponentials of a row that fits registers are computed once.
    """
    found = find_row_kernel(Schedule(module))
    if found is None or found.combiners != ("Max", "Add"):
        return None
    return row_space("softmax", module, found, limits)


def layer_norm(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a kernel that sums each row, perhaps again with what the sum gave; None for others."""
    found = find_row_kernel(Schedule(module))
    if found is None or set(found.combiners) != {"Add"}:
        return None
    return row_space("layer_norm", module, found, limits)


def group_norm(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a kernel that takes several sums of each row in one pass; None for others.

    A group's channels are a stretch of memory, a row. One that does not fit registers is read twice and written once.
    """
    found = find_row_kernel(Schedule(module))
    if found is None or found.combiners != ("",):
        return None
    return row_space("group_norm", module, found, limits)
