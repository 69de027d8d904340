"""From RADV's statistics and machine code of a shader to `ShaderFacts`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...support.shader_facts import ShaderFacts

_MULTIPLY_ADD = re.compile(r"v_(?:dual_|pk_)?(?:fma|fmac|mad|mac)(?!\w*_[iu]\d)")
"""AMD's multiply-adds of floating-point numbers. Those of integers compute addresses."""

_BLOCK = re.compile(r"\n(?=BB\d+:)")
_INSTRUCTION = re.compile(r"\s+([a-z]+_\w+)")


_STATISTICS = {
    "vgprs": "VGPRs",
    "sgprs": "SGPRs",
    "spilled_vgprs": "Spilled VGPRs",
    "spilled_sgprs": "Spilled SGPRs",
    "scratch_bytes": "Scratch size",
    "workgroup_bytes": "LDS size",
    "waves": "Subgroups per SIMD",
    "instructions": "Instructions",
    "code_bytes": "Code size",
    "latency_cycles": "Latency",
    "inverse_throughput_cycles": "Inverse Throughput",
}
"""RADV's names of the statistics (``radv_pipeline.c`` and ``aco_statistics.cpp`` of Mesa)."""


def facts_of(statistics: Mapping[str, int], texts: Mapping[str, str]) -> ShaderFacts:
    """Return the facts in RADV's statistics and representations of a shader; raises KeyError where one is missing."""
    hot = hottest_block(texts.get("Assembly", ""))
    values: dict[str, Any] = {field: int(statistics[name]) for field, name in _STATISTICS.items()}
    instructions, multiply_adds = hot if hot is not None else (None, None)
    return ShaderFacts(**values, hot_instructions=instructions, hot_multiply_adds=multiply_adds)


def hottest_block(assembly: str) -> tuple[int, int] | None:
    """Return instructions and multiply-adds of the block with most multiply-adds, the first of equals.

    None where the text is no disassembly: Mesa may be built without a disassembler.
    """
    best: tuple[int, int] | None = None
    for block in _BLOCK.split("\n" + assembly):
        lines = [line for line in block.split("\n") if _INSTRUCTION.match(line)]
        # An instruction of two halves (`::`) issues at once and counts once.
        count = sum(any(_MULTIPLY_ADD.match(half.strip()) for half in line.split("::")) for line in lines)
        if lines and (best is None or count > best[1]):
            best = len(lines), count
    return best
