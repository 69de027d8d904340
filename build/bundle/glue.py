"""The stages between the networks, hand-written in WGSL (folder ``glue``): schedule, guide, image."""

from __future__ import annotations

from importlib import resources

THREADS = 256
"""Workgroup size of every glue shader: one invocation per element."""

ENTRY = "main"


def glue_source(name: str) -> str:
    """The WGSL of ``name``: ``schedule``, ``guide`` (with guidance), ``keep`` (without) or ``image``."""
    return resources.files(__package__).joinpath("glue_shaders", f"{name}.wgsl").read_text(encoding="utf-8")


def glue_grid(elements: int, most: int = 65535) -> tuple[int, int, int]:
    """Workgroups for ``elements`` invocations, x first and no dimension above ``most``."""
    groups = -(-elements // THREADS)
    rows = -(-groups // most)
    return (-(-groups // rows), rows, 1)
