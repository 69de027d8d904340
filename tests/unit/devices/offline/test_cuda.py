"""CUDA without a GPU: disassemblies, occupancy, and what is said where NVIDIA's compilers are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuning_kernels import capture_of, matmul, softmax

from wgtune.devices.offline import cuda
from wgtune.devices.offline.chips import CUDA_CHIPS, find_chips, select_chips
from wgtune.devices.offline.compiler import OfflineCompiler, installed_compiler
from wgtune.devices.offline.cuda import MULTIPROCESSORS, CudaCompiler, CudaError, sass_blocks, toolkit
from wgtune.devices.program import Shader
from wgtune.support.errors import DeviceError, UsageError
from wgtune.tuner.remeasure.cuda_programs import cuda_baselines

SASS = """\
\t.target\tsm_89
//--------------------- .text.main_kernel         --------------------------
main_kernel:
.text.main_kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   ISETP.GE.AND P0, PT, R0, UR4, PT ;
        /*0020*/               @P0 EXIT ;
        /*0030*/                   IMAD R2, R3, R4, R5 ;
.L_x_1:
        /*0040*/                   LDS.128 R4, [R2] ;
        /*0050*/                   FFMA R1, R2, R3, R4 ;
        /*0060*/              @!P1 FFMA R1, R2, R3.reuse, R4 ;
        /*0070*/                   FMUL R1, R2, R3 ;
        /*0080*/              @P0  BRA `(.L_x_1) ;
        /*0090*/                   FFMA R1, R2, R3, R4 ;
        /*00a0*/                   EXIT ;
.L_x_2:
        /*00b0*/                   BRA `(.L_x_2);
        /*00c0*/                   NOP;
        /*00d0*/                   NOP;
"""

LOG = """\
ptxas info    : Compiling entry function 'main_kernel' for 'sm_89'
ptxas info    : Function properties for main_kernel
    8 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 8 bytes cumulative stack size, 6912 bytes smem, 384 bytes cmem[0]
"""


def test_blocks_end_at_labels_and_branches_and_padding_does_not_count() -> None:
    assert sass_blocks(SASS) == [(3, 0), (1, 0), (5, 2), (2, 1), (1, 0)]
    assert sass_blocks("") == []


def test_integer_multiply_adds_do_not_count() -> None:
    lines = [
        "IMAD.WIDE R2, R3, R4, R5",
        "FFMA.FTZ R1, R2, R3, R4",
        "HFMA2.MMA R1, R2, R3, R4",
        "UIMAD UR4, UR5, UR6, URZ",
    ]
    assert sass_blocks("".join(f"        /*0000*/  {line} ;\n" for line in lines)) == [(4, 2)]


def test_facts_are_read_from_what_ptxas_says() -> None:
    compiler = CudaCompiler.__new__(CudaCompiler)
    compiler._multiprocessor = MULTIPROCESSORS["sm_89"]
    facts = compiler._facts(LOG, SASS, "main_kernel", 128)
    assert (facts.vgprs, facts.sgprs, facts.spilled_vgprs, facts.scratch_bytes) == (64, 0, 5, 256)
    assert (facts.workgroup_bytes, facts.instructions, facts.code_bytes) == (6912, 12, 192)
    assert (facts.hot_instructions, facts.hot_multiply_adds, facts.waves) == (5, 2, 8)
    with pytest.raises(CudaError, match="nothing of other"):
        compiler._facts("", SASS, "other", 128)


@pytest.mark.parametrize(
    ("chip", "threads", "registers", "shared", "warps"),
    [
        # The limits of a multiprocessor: its warps, its blocks, its registers, its shared memory.
        ("sm_80", 256, 32, 0, 16),
        ("sm_75", 256, 32, 0, 8),
        ("sm_89", 256, 40, 0, 12),
        ("sm_80", 32, 16, 0, 8),
        ("sm_80", 256, 64, 0, 8),
        ("sm_80", 256, 65, 0, 6),  # 65 registers are given as 72: 7 warps, of which blocks of 8 warps use 6
        ("sm_80", 256, 255, 0, 2),
        ("sm_90", 128, 32, 100 << 10, 2),
        ("sm_75", 128, 32, 32 << 10, 2),
        ("sm_80", 1024, 255, 0, 0),
    ],
)
def test_warps_of_a_scheduler(chip: str, threads: int, registers: int, shared: int, warps: int) -> None:
    assert MULTIPROCESSORS[chip].warps_per_scheduler(threads, registers, shared) == warps


def test_every_chip_has_its_multiprocessor_and_a_key_of_its_own() -> None:
    assert {chip.name for chip in CUDA_CHIPS} == set(MULTIPROCESSORS)
    assert CUDA_CHIPS[0].key == "compile-only:cuda-sm_75"
    assert select_chips(["ada", "compile-only:cuda-sm_90"]) == [CUDA_CHIPS[2], CUDA_CHIPS[3]]


def test_chips_of_both_makers_are_no_rows_of_one_table() -> None:
    with pytest.raises(UsageError, match="CUDA"):
        select_chips(["navi21", "sm_89"])


@pytest.fixture
def no_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    toolkit.cache_clear()
    monkeypatch.setattr(cuda, "_roots", lambda: iter([tmp_path]))
    yield tmp_path
    toolkit.cache_clear()


def test_without_the_toolkit_one_sentence_names_the_extra(no_toolkit: Path) -> None:
    with pytest.raises(DeviceError) as refused:
        installed_compiler(CUDA_CHIPS)
    assert "NVRTC, ptxas and nvdisasm" in refused.value.message and "wgtune[compiled-cuda]" in refused.value.message
    found, problems = find_chips(CUDA_CHIPS)
    assert not found and len(problems) == 1


def test_an_older_toolkit_does_not_do(no_toolkit: Path) -> None:
    (no_toolkit / "bin").mkdir()
    (no_toolkit / "lib").mkdir()
    for name in ("ptxas", "nvdisasm"):
        (no_toolkit / "bin" / name).touch()
    (no_toolkit / "lib" / "libnvrtc.so.12").touch()
    with pytest.raises(DeviceError):
        toolkit()
    (no_toolkit / "lib" / "libnvrtc.so.13").touch()
    assert toolkit() == no_toolkit


def test_tvm_writes_cuda_without_a_toolkit() -> None:
    capture = capture_of(matmul(256, 256, 256), softmax(), calls=3)
    programs = cuda_baselines(capture, CUDA_CHIPS[2], 20, lambda what, done: None)
    assert [one.problem for one in programs] == ["", ""]
    for one in programs:
        assert one.shaders and one.program_digest and sum(one.launches.values()) > 0
        for shader in one.shaders.values():
            assert f" {shader.entry}(" in shader.source and 0 < shader.workgroup[0] <= 1024
            assert f"__launch_bounds__({shader.workgroup[0]})" in shader.source


def is_installed() -> bool:
    try:
        toolkit()
    except DeviceError:
        return False
    return sys.platform.startswith("linux")


@pytest.mark.skipif(not is_installed(), reason="NVIDIA's compilers are not installed: wgtune[compiled-cuda]")
def test_every_chip_compiles_what_tvm_writes() -> None:
    programs = cuda_baselines(capture_of(matmul(256, 256, 256)), CUDA_CHIPS[0], 20, lambda what, done: None)
    (shader,) = [shader for one in programs for shader in one.shaders.values()]
    faulty = Shader("main_kernel", "this is no CUDA", (1, 1, 1))
    with OfflineCompiler(CUDA_CHIPS) as compiler:
        assert "NVRTC" in compiler.compiler and "ptxas" in compiler.compiler
        good, bad, again = compiler.compile([(one, CUDA_CHIPS) for one in (shader, faulty, shader)])
    assert good == again and all("NVRTC: " in one.error for one in bad)
    for one in good:
        assert one.facts is not None, one.error
        assert one.facts.vgprs > 16 and one.facts.spills == 0 and one.facts.waves > 0
        assert one.facts.share and 0.3 < one.facts.share < 1
