"""Schedule rules for what diffusion networks are made of: good untuned, and with parameters to search.

A rule looks at a kernel and offers a `RuleSpace`: parameters with candidates and a default for a GPU that nobody has
measured. The result is an ordinary trace of TVM's scheduling instructions, as MetaSchedule's own sketches give it.

May import ``devices`` and ``support``. Reading order:

- `rule`: what a rule offers.
- `contraction`: products and convolutions as sums over two operands; which loops belong to which side.
- `matmul`: matrix products, plain, batched or transposed, and 1 × 1 convolutions.
- `conv2d`: convolutions with larger filters.
- `tiles`: default tile sizes.
- `inlining`: what comes before and after a reduction becomes part of its loads and stores.
"""
