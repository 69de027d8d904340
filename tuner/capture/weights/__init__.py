"""Weights: how they are stored for kernels, and how they are made of a checkpoint's tensors. And other half floats.

Of `wgtune.tuner.capture` it imports `rewrites.graph`, `rewrites.markers` and `model_files.git_lfs` only. Reading order:

- `formats`: the formats of weights in memory, encoded on the CPU and decoded in kernels.
- `reads`: which weights are stored in which format; kernels that decode them where they read them.
- `halves`: which values kernels pass on to each other as half floats.
- `checkpoint`: a component's weight files, and their tensors one at a time.
- `transform`: the weights that the kernels read, from a checkpoint's tensors.
"""
