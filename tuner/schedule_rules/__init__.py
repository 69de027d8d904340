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
- `row_groups`: rows and threads of a workgroup that reduces rows.
- `row_reduction`: reductions over rows and what is computed from them, in one dispatch.
- `norms`: softmax, layer norm and group norm, which are such reductions.
- `pointwise`: kernels without a reduction; which axes count as one, and the direction of each read.
- `transpose`: reads across the direction of writes, through registers.
- `elementwise`: all other kernels without a reduction.
- `index_maps`: maps of axes and dimensions.
- `attention`: scores, softmax and weighted values as one kernel.
"""

from tvm import IRModule

from .attention import attention, expanded, find_attention, schedule_by_rows
from .conv2d import conv2d
from .elementwise import elementwise
from .matmul import matmul
from .norms import group_norm, layer_norm, softmax
from .rule import BOUNDED_GRID, Limits, RuleSpace, ScheduleRule
from .transpose import transpose

__all__ = [
    "BOUNDED_GRID",
    "RULES",
    "Limits",
    "RuleSpace",
    "ScheduleRule",
    "expanded",
    "rule_spaces",
    "ruled_alone",
    "schedule_by_rows",
]

RULES: tuple[ScheduleRule, ...] = (attention, matmul, conv2d, softmax, layer_norm, group_norm, transpose, elementwise)
"""The rules in the order in which they are asked."""


def rule_spaces(module: IRModule, limits: Limits) -> list[RuleSpace]:
    """Return the spaces of all rules that apply to the kernel ``main`` of ``module``."""
    spaces = (rule(module, limits) for rule in RULES)
    return [space for space in spaces if space is not None]


def ruled_alone(module: IRModule) -> bool:
    """Return whether only a rule's schedules of the kernel are worth trying: others of attention keep its scores."""
    return find_attention(module) is not None
