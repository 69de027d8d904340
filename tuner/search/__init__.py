"""The search for faster schedules of a model's kernels.

May import `tuner.codegen`, `tuner.schedule_rules`, ``database``, ``devices`` and ``support``. Knows neither sessions
nor workers: it proposes schedules, and is told what they took. Reading order:

- `evolutionary`: one kernel's search. Draws and mutates points, ranks them by the cost model, and emits programs.
- `cost_model`: how near a point comes to the best, learnt from this device and others.
- `knowledge`: what the database knows of other devices and kernels, as examples.
- `features`: what the cost model knows of kernels, points and devices.
- `kernel_space`: all points of a kernel.
- `design_space`: MetaSchedule's sketches of a kernel, and which decisions keep the limits of a workgroup.
- `rule_sketch`: the parameters of the project's own schedule rules.
- `knobs`: what both are made of.
- `task_scheduler`: which kernel gets the next trials.
"""
