"""Schedule rules for what diffusion networks are made of: good untuned, and with parameters to search.

A rule looks at a kernel and offers a `RuleSpace`: parameters with candidates and a default for a GPU that nobody has
measured. The result is an ordinary trace of TVM's scheduling instructions, as MetaSchedule's own sketches give it.

Imports nothing of the project's other packages. Reading order:

- `rule`: what a rule offers.
- `contraction`: products and convolutions as sums over two operands; which loops belong to which side.
- `matmul`: matrix products, plain, batched or transposed, and 1 × 1 convolutions.
- `conv2d`: convolutions with larger filters.
- `tiles`: default tile sizes.
- `inlining`: what comes before and after a reduction becomes part of its loads and stores.
- `layouts`: how tiles lie in workgroup memory.
"""

from tvm import IRModule

from .conv2d import conv2d
from .matmul import matmul
from .rule import Limits, RuleSpace, ScheduleRule

__all__ = ["RULES", "Limits", "RuleSpace", "ScheduleRule", "rule_spaces"]

RULES: tuple[ScheduleRule, ...] = (matmul, conv2d)
"""The rules in the order in which they are asked."""


def rule_spaces(module: IRModule, limits: Limits) -> list[RuleSpace]:
    """Return the spaces of all rules that apply to the kernel ``main`` of ``module``."""
    spaces = (rule(module, limits) for rule in RULES)
    return [space for space in spaces if space is not None]
