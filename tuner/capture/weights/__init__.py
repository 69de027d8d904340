"""Weights: how they are stored for kernels, and how they are made of a checkpoint's tensors.

Imports nothing of `wgtune.tuner.capture`. Reading order:

- `formats`: the formats of weights in memory, encoded on the CPU and decoded in kernels.
- `reads`: which weights are stored in which format; kernels that decode them where they read them.
- `checkpoint`: a component's weight files, and their tensors one at a time.
- `transform`: the weights that the kernels read, from a checkpoint's tensors.
"""
