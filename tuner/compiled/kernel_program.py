"""A kernel's program as it is judged without running it: its shaders, and how much work they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...devices.program import Shader
from ..kernel_names import kernel_class


@dataclass(frozen=True)
class KernelProgram:
    """One kernel.

    Attributes:
        name: The kernel's name.
        workload_id: Its id, empty where a bundle does not tell it.
        launches: Launches for one batch of images, by stage.
        flops: Floating-point operations of one launch; None where unknown.
        shaders: By digest, in order; without the text where the database knew all that it was needed for.
        program_digest: The program's digest, empty where a bundle does not tell it.
        before: Digest of the shader that a bundle runs just before these, which may be this kernel's too.
        problem: Why there is no program, else empty.
        changed: Whether a record's schedule makes another program now than was measured; this is today's.
    """

    name: str
    workload_id: str
    launches: Mapping[str, int]
    flops: float | None
    shaders: Mapping[str, Shader | None] = field(default_factory=dict)
    program_digest: str = ""
    before: str = ""
    problem: str = ""
    changed: bool = False

    @property
    def multiplies(self) -> bool:
        """Whether it is a matrix product, a convolution or attention: work that multiply-adds do."""
        return kernel_class(self.name).multiplies

    def work(self, stage: str | None = None) -> float:
        """Floating-point operations for one batch of images, in one stage or in all; 0 where unknown."""
        counts = [self.launches.get(stage, 0)] if stage is not None else self.launches.values()
        return (self.flops or 0.0) * sum(counts)
