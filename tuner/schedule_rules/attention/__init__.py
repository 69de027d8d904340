"""Attention as one kernel: what it computes, in one pass over the keys, and the rule that chooses its tiles.

- `definition`: the unfused arithmetic, which capture writes and the CPU reference runs.
- `tiling`: shares of workgroups and threads, and what memory they take.
- `online`: the same in one pass, bound to workgroups and threads.
- `rule`: recognises the definition, offers tilings, and expands a schedule into the one pass.
- `by_rows`: the unfused arithmetic on a CPU.
"""

from .by_rows import schedule_by_rows
from .rule import attention, expanded, find_attention

__all__ = ["attention", "expanded", "find_attention", "schedule_by_rows"]
