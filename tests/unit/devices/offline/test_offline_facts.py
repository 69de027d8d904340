"""From RADV's statistics and machine code to facts."""

from __future__ import annotations

import pytest

from wgtune.devices.offline.facts import facts_of, hottest_block

STATISTICS = {
    "SGPRs": 128,
    "VGPRs": 56,
    "Spilled SGPRs": 1,
    "Spilled VGPRs": 2,
    "Code size": 3080,
    "LDS size": 2048,
    "Scratch size": 64,
    "Subgroups per SIMD": 18,
    "Instructions": 600,
    "Latency": 6059,
    "Inverse Throughput": 1656,
    "Copies": 7,
}

ASSEMBLY = """\
BB0:
\ts_mov_b32 s0, s3                                            ; be800303
\tv_mad_u32_u24 v0, s0, 6, v0                                 ; d7460000 04010c00
\ts_cbranch_execz BB2                                         ; bf88004f
BB1:
\tv_fmac_f32_e32 v1, v2, v3                                   ; 56020702
\tv_fma_f32 v1, v2, v3, v4                                    ; d54b0001 04120702
\tv_pk_fma_f16 v1, v2, v3, v4                                 ; cc0e4001 1c120702
\tv_mul_f32_e32 v1, v2, v3                                    ; 10020702
BB2:
\tv_fma_f32 v1, v2, v3, v4                                    ; d54b0001 04120702
\ts_endpgm                                                    ; bf810000
"""


def test_the_hottest_block_is_the_one_with_most_multiply_adds() -> None:
    assert hottest_block(ASSEMBLY) == (4, 3)


def test_integers_are_multiplied_to_compute_addresses() -> None:
    block = "BB0:\n\tv_mad_u32_u24 v0, v1, v2, v3\n\tv_mad_u64_u32 v0, v1, v2, v3\n\tv_mad_i32_i24 v0, v1, v2, v3\n"
    assert hottest_block(block) == (3, 0)
    # GCN 5 has multiply-adds that round twice.
    assert hottest_block("BB0:\n\tv_mac_f32_e32 v0, v1, v2\n\tv_mad_f32 v0, v1, v2, v3\n") == (2, 2)
    assert hottest_block("BB0:\n\tv_fma_mix_f32 v0, v1, v2, v3\n\tv_fmaak_f32 v0, v1, v2, 0x3f000000\n") == (2, 2)


def test_two_halves_of_an_instruction_issue_at_once() -> None:
    both = "\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_fmac_f32 v3, v4, v5\n"
    one = "\tv_dual_mov_b32 v0, v1 :: v_dual_fmac_f32 v3, v4, v5\n"
    none = "\tv_dual_mov_b32 v0, v1 :: v_dual_mul_f32 v3, v4, v5\n"
    assert hottest_block("BB0:\n" + both + one + none) == (3, 2)


def test_of_equal_blocks_the_first_is_hottest() -> None:
    fma = "\tv_fma_f32 v1, v2, v3, v4\n"
    assert hottest_block(f"BB0:\n{fma}\ts_nop 0\nBB1:\n{fma}") == (2, 1)


def test_a_loop_is_hotter_than_what_follows_it() -> None:
    fma, branch = "\tv_fma_f32 v1, v2, v3, v4\n", "\ts_cbranch_scc0 {}\n"
    after = f"BB4:\n{fma * 9}\ts_endpgm\n"
    head = f"BB0:\n{fma * 4}BB1:\n\ts_nop 0\n{branch.format('BB4')}"
    body = f"BB2:\n{fma * 3}\ts_nop 0\nBB3:\n{fma}\ts_branch BB1\n"
    assert hottest_block(head + body + after) == (4, 3)
    assert hottest_block(head + after) == (10, 9), "a branch forward is no loop"
    assert hottest_block(head + body.replace(fma, "") + after) == (10, 9), "a loop without any is not what is hot"


@pytest.mark.parametrize("text", ["", "Shader disassembly is not supported: LLVM is missing"])
def test_without_a_disassembly_nothing_is_hot(text: str) -> None:
    assert hottest_block(text) is None
    facts = facts_of(STATISTICS, {"Assembly": text})
    assert (facts.hot_instructions, facts.hot_multiply_adds, facts.share) == (None, None, None)


def test_the_facts_have_radvs_statistics() -> None:
    facts = facts_of(STATISTICS, {"NIR Shader(s)": "…", "Assembly": ASSEMBLY})
    assert (facts.vgprs, facts.sgprs, facts.spilled_vgprs, facts.spilled_sgprs, facts.spills) == (56, 128, 2, 1, 3)
    assert (facts.scratch_bytes, facts.workgroup_bytes, facts.waves) == (64, 2048, 18)
    assert (facts.instructions, facts.code_bytes) == (600, 3080)
    assert (facts.latency_cycles, facts.inverse_throughput_cycles) == (6059, 1656)
    assert facts.share == 0.75


def test_a_missing_statistic_is_an_error() -> None:
    with pytest.raises(KeyError, match="VGPRs"):
        facts_of({key: value for key, value in STATISTICS.items() if key != "VGPRs"}, {})
