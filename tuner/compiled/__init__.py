"""What the compilers of GPUs that are not here make of shaders: asked once, then read from the database.

May import `wgtune.devices`, `wgtune.database` and `wgtune.support`. Reading order:

- `kernel_program`: a kernel's shaders, and how much work they stand for.
- `facts`: the facts of shaders on chips, those that the database lacks compiled and kept.
"""
