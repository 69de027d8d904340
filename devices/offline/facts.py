"""From RADV's statistics and machine code of a shader to `ShaderFacts`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...support.shader_facts import ShaderFacts

_MULTIPLY_ADD = re.compile(r"v_(?:dual_|pk_)?(?:fma|fmac|mad|mac)(?!\w*_[iu]\d)")
"""AMD's multiply-adds of floating-point numbers. Those of integers compute addresses."""

_BLOCK = re.compile(r"\n(?=BB\d+:)")
_LABEL = re.compile(r"\s*(BB\d+):")
_INSTRUCTION = re.compile(r"\s+([a-z]+_\w+)")
_BRANCH = re.compile(r"\s+s_c?branch\w*\s+(BB\d+)\b")


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

    A block of a loop comes before all that run once, such as what a product is followed by. None where the text is no
    disassembly: Mesa may be built without a disassembler.
    """
    blocks = [block.split("\n") for block in _BLOCK.split("\n" + assembly)]
    repeated = _blocks_in_loops(blocks)
    best: tuple[int, int] | None = None
    best_key = (False, -1)
    for number, block in enumerate(blocks):
        lines = [line for line in block if _INSTRUCTION.match(line)]
        # An instruction of two halves (`::`) issues at once and counts once.
        count = sum(any(_MULTIPLY_ADD.match(half.strip()) for half in line.split("::")) for line in lines)
        key = (number in repeated and count > 0, count)
        if lines and key > best_key:
            best, best_key = (len(lines), count), key
    return best


def _blocks_in_loops(blocks: Sequence[Sequence[str]]) -> set[int]:
    """Return the numbers of the blocks between a branch back and its target, both included."""
    labels = {found[1]: number for number, block in enumerate(blocks) if (found := _LABEL.match("\n".join(block)))}
    repeated: set[int] = set()
    for number, block in enumerate(blocks):
        for line in block:
            if (branch := _BRANCH.match(line)) and labels.get(branch[1], number + 1) <= number:
                repeated.update(range(labels[branch[1]], number + 1))
    return repeated
