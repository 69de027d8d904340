"""Kernels and schedules as TVM objects. The only part of ``database`` that imports TVM.

May import every other part of ``database``. Reading order:

- `graph_json`: reading of TVM's JSON.
- `kernel_identity`: canonical text, its SHA-256, and canonical names.
- `modules`: from TVM modules to workloads and back.
- `traces`: traces as JSON, and their translation to other names.
- `database`: `ScheduleDatabase`, which MetaSchedule tunes into and reads from.
"""
