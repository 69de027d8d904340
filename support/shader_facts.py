"""What a GPU's compiler makes of a shader: compiled by `wgtune.devices.offline`, kept by `wgtune.database`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShaderFacts:
    """A shader as a GPU's compiler left it.

    Attributes:
        vgprs: Vector registers of a thread. NVIDIA's chips have no others that count.
        sgprs: Scalar registers of a wave; 0 where the chip has none.
        spilled_vgprs: Vector registers that did not fit and went to memory.
        spilled_sgprs: Scalar registers that did not fit.
        scratch_bytes: Memory of a wave for spills and for arrays that are indexed at run time.
        workgroup_bytes: Workgroup memory (LDS).
        waves: Waves that a SIMD can hold at once; on NVIDIA's chips warps of a scheduler.
        instructions: Instructions of the whole shader.
        code_bytes: Size of the machine code.
        latency_cycles: The compiler's estimate of a wave's duration. Loops are weighed by a guess. 0 for none.
        inverse_throughput_cycles: The compiler's estimate of cycles per wave where there are enough waves; likewise.
        hot_instructions: Instructions of the block with most multiply-adds; None where there is no disassembly.
        hot_multiply_adds: Multiply-adds among them.
    """

    vgprs: int
    sgprs: int
    spilled_vgprs: int
    spilled_sgprs: int
    scratch_bytes: int
    workgroup_bytes: int
    waves: int
    instructions: int
    code_bytes: int
    latency_cycles: int
    inverse_throughput_cycles: int
    hot_instructions: int | None
    hot_multiply_adds: int | None

    @property
    def spills(self) -> int:
        """Registers that did not fit."""
        return self.spilled_vgprs + self.spilled_sgprs

    @property
    def share(self) -> float | None:
        """Share of multiply-adds in the hottest block, which bounds the share of the GPU's peak; None if unknown."""
        if self.hot_instructions is None or self.hot_multiply_adds is None:
            return None
        return self.hot_multiply_adds / max(1, self.hot_instructions)
