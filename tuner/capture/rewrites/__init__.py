"""Rewrites of a stage's Relax graph that save launches, before its weights are lifted out and its kernels are fused.

Imports nothing of the project's other packages. Reading order:

- `markers`: what converters mark for rewrites and for lowering.
- `graph`: values of a graph, and their replacement.
- `parallel_products`: products of one input become one product.
- `gated_products`: gated linear units become part of the products that they split.
- `transposed_products`: transposes become part of the products beside them.
- `concatenated_pictures`: joined channels become part of the norms and convolutions that read them.
- `upsampled_convolutions`: repeated pixels become part of the convolutions that read them.
"""

import tvm

from .concatenated_pictures import fold_concatenations
from .gated_products import fold_gates
from .parallel_products import combine_products
from .transposed_products import fold_transposes
from .upsampled_convolutions import fold_upsampling

__all__ = ["rewrite"]


def rewrite(module: tvm.IRModule, max_binding: int) -> tvm.IRModule:
    """Return ``module`` with all rewrites applied.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
        max_binding: most bytes of a storage binding.
    """
    module = fold_gates(combine_products(module, max_binding))
    return fold_concatenations(fold_upsampling(fold_transposes(module)))
