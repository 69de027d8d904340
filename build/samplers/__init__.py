"""diffusers' schedulers as recurrences of a few states, which need neither diffusers nor the sampler's formulas to run.

Used by `bundle`, which stores them, and by `runtime` for schedules that a bundle does not hold. Imports
`wgtune.build.format` and diffusers.

Modules, in reading order:

- `schedulers`: the diffusers scheduler of a model's configuration, and what of it is not linear
- `tracing`: a scheduler's run on unit vectors: every model input as coefficients of all that went in before
- `recurrence`: the recurrence with the fewest states that gives these coefficients
- `tables`: the runs of all samplers of a bundle
"""
