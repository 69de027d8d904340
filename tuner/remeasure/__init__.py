"""Measuring what is known already: stored schedules once more, or a model's stages in PyTorch. Nothing is tuned.

May import `wgtune.tuner.session`, `capture`, `codegen`, `reference` and `ir`, and below the tuner `wgtune.devices`,
`wgtune.database` and `wgtune.support`.

Reading order:

- `remeasurement`: measures stored schedules on a device, in rounds, as trials that are never ranked; begin here.
- `stability`: the best schedules of a device, measured on that device again.
- `cross_device`: the best schedules of one device, measured on another.
- `judged_programs`: programs to be judged without running them: untuned baselines, best records.
- `cuda_programs`: untuned baselines as TVM's CUDA, for NVIDIA's compilers.
- `pytorch_baseline`: the latency of a model's stages in PyTorch.
"""
