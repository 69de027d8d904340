"""Schedules and programs: from a kernel and a trace to what a device runs.

May import `tuner.schedule_rules`, ``database.tvm``, ``devices`` and ``support``. Reading order:

- `traces`: the module that schedules start from, their traces as JSON, and how a stored trace is replayed.
- `emit`: the program of a scheduled kernel, for the runtime that a tier belongs to.
- `wgsl`: lowering by TVM's passes, with the launches read from TVM's host function.
- `wgsl_printer`, `wgsl_expressions`, `straight_line`: lowered functions as WGSL.
- `lowered_kernel`, `wgsl_layout`: what a lowered function holds; its buffers as scalars, vectors or variables.
- `grid_slices`: a dispatch as several, each a slice of its grid.
- `targets`: TVM targets with a tier's limits, for search and for emission.
- `baseline_schedules`: untuned schedules, the first measurement of every kernel.
- `tvm_native`: tiers and programs of TVM's own runtimes (CUDA, Metal, LLVM).
"""
