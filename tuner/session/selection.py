"""Which kernels of a model a command means: by stage, and by name, id or pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ...support.errors import UsageError
from ..ir import Capture, Kernel

_SHORTEST_ID = 6
"""Hex digits from which a word may be the beginning of a kernel's id."""


def select_kernels(
    capture: Capture, stages: Sequence[str] | None = None, patterns: Sequence[str] | None = None
) -> list[Kernel]:
    """The kernels that ``stages`` launch and that some pattern names, in order of first launch; None means all.

    A pattern is a kernel's name, its id or the beginning of it, or a glob over names (``conv2d*``).

    Raises:
        UsageError: there is no such stage, or a pattern fits no kernel of the stages.
    """
    unknown = [stage for stage in stages or () if stage not in capture.stages]
    if unknown:
        raise UsageError(
            f"{capture.model} has no stage {', '.join(unknown)}", f"its stages: {', '.join(capture.stages)}"
        )
    found: dict[str, Kernel] = {}
    for name, stage in capture.stages.items():
        if not stages or name in stages:
            for kernel in stage.calls_per_kernel():
                found.setdefault(kernel, capture.kernels[kernel])
    if not patterns:
        return list(found.values())
    for pattern in patterns:
        if not any(_fits(kernel, pattern) for kernel in found.values()):
            raise UsageError(
                f"no kernel of {capture.model} is called {pattern!r}",
                f"`wgtune kernels --model {capture.model}` lists them; a pattern such as 'conv2d*' works too",
            )
    return [kernel for kernel in found.values() if any(_fits(kernel, pattern) for pattern in patterns)]


def _fits(kernel: Kernel, pattern: str) -> bool:
    if kernel.name == pattern or fnmatchcase(kernel.name, pattern):
        return True
    return len(pattern) >= _SHORTEST_ID and kernel.id.startswith(pattern.lower())
