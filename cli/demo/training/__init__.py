"""Trains the demo model from nothing, on pictures that a program draws (`make demo-model`).

Runs as a program of its own: no other module needs it. Reading order:

- `__main__`: the options.
- `program`: the parts of the training in their order.
- `autoencoder`: pictures to latents and back.
- `examples`: the training set, latents with captions.
- `denoiser`: the denoiser together with the text encoder.
- `evaluation`: draws held-out captions and counts the right ones.
- `checkpoints`: what makes an interrupted run go on.
"""
