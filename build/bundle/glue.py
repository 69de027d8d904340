"""The glue stages between the networks, hand-written in WGSL (folder ``glue_shaders``): schedule, guide, image."""

from __future__ import annotations

from importlib import resources

THREADS = 256
"""Workgroup size of every glue shader: one invocation per element."""

ENTRY = "main"


def glue_source(name: str) -> str:
    """Return the WGSL of ``name``: ``schedule``, ``guide`` (with guidance), ``keep`` (without) or ``image``."""
    return resources.files(__package__).joinpath("glue_shaders", f"{name}.wgsl").read_text(encoding="utf-8")


def glue_grid(elements: int, most: int = 65535) -> tuple[int, int, int]:
    """Return the workgroups for ``elements`` invocations; no dimension exceeds ``most``."""
    groups = -(-elements // THREADS)
    rows = -(-groups // most)
    return (-(-groups // rows), rows, 1)
