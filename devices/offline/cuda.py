"""CUDA source to machine code by NVIDIA's own compilers, without a GPU: NVRTC, ptxas, nvdisasm.

They come from PyPI (the extra ``compiled-cuda``) or with an installed CUDA toolkit of version 13 or later.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...support.errors import DeviceError
from ...support.shader_facts import ShaderFacts

_TIMEOUT_S = 100.0
_WARP = 32
_INSTRUCTION_BYTES = 16
_SCHEDULERS = 4

_HEADERS = {
    "cuda/std/cstdint": "namespace cuda { namespace std {"
    " using int8_t = signed char; using int16_t = short; using int32_t = int; using int64_t = long long;"
    " using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned int;"
    " using uint64_t = unsigned long long; } }",
    "cuda/std/type_traits": "namespace cuda { namespace std {"
    " template <class A, class B> struct is_same { static constexpr bool value = false; };"
    " template <class A> struct is_same<A, A> { static constexpr bool value = true; };"
    " template <class A, class B> constexpr bool is_same_v = is_same<A, B>::value;"
    " template <class A> struct is_integral; template <class A> struct is_signed;"
    " template <class A> struct is_unsigned; template <class A> struct is_floating_point;"
    " template <bool B, class T = void> struct enable_if; template <bool B, class T, class F> struct conditional; } }",
}
"""The headers that TVM's CUDA includes, as far as its float32 kernels use them: saves a package of 25 MB."""

_MULTIPLY_ADD = re.compile(r"(?:@!?U?P\w+\s+)?(?:FFMA|FFMA2|HFMA2|DFMA)\b")
_LINE = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(\S.*)")
_ENDS_BLOCK = re.compile(r"(?:@!?U?P\w+\s+)?(?:BRA|BRX|JMP|EXIT|RET)\b")


@dataclass(frozen=True)
class Multiprocessor:
    """What a streaming multiprocessor holds at once (CUDA C++ Programming Guide, "Compute Capabilities")."""

    warps: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int = 1024
    """Shared memory that the system takes for each block."""
    registers: int = 65536

    def warps_per_scheduler(self, threads: int, registers: int, shared_bytes: int) -> int:
        """Return the warps of a scheduler for blocks of so many threads, registers a thread and shared bytes."""
        warps = -(-threads // _WARP)
        # Registers are given to a warp in units of 256, and a warp stays with one of the schedulers.
        of_warp = max(256, -(-registers * _WARP // 256) * 256)
        by_registers = self.registers // _SCHEDULERS // of_warp * _SCHEDULERS // warps
        by_shared = self.shared_bytes // max(1, shared_bytes + self.reserved_bytes)
        return min(self.blocks, self.warps // warps, by_registers, by_shared) * warps // _SCHEDULERS


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(32, 16, 64 << 10, reserved_bytes=0),
    "sm_80": Multiprocessor(64, 32, 164 << 10),
    "sm_89": Multiprocessor(48, 24, 100 << 10),
    "sm_90": Multiprocessor(64, 32, 228 << 10),
}


class CudaError(Exception):
    """A source that NVIDIA's compilers refuse."""


@cache
def toolkit() -> Path:
    """Return the folder of the CUDA toolkit; raises DeviceError, in one sentence, where a part of it is missing."""
    for root in _roots():
        if all((root / "bin" / name).is_file() for name in ("ptxas", "nvdisasm")) and _library(root) is not None:
            return root
    raise DeviceError(
        "compiling for NVIDIA's chips needs NVRTC, ptxas and nvdisasm of CUDA 13, which are not installed",
        "pip install 'wgtune[compiled-cuda]', or name an installed toolkit with CUDA_HOME",
    )


def _roots() -> Iterator[Path]:
    yield from sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu[0-9]*"), reverse=True)
    for name in (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"):
        if name:
            yield Path(name)


def _library(root: Path) -> Path | None:
    """Return NVRTC's library of version 13 or later."""
    found = [path for folder in ("lib", "lib64") for path in sorted((root / folder).glob("libnvrtc.so.[0-9][0-9]"))]
    return next((path for path in reversed(found) if int(path.suffix[1:]) >= 13), None)


class CudaCompiler:
    """Compiles CUDA source for one chip, such as ``sm_89``."""

    def __init__(self, chip: str) -> None:
        """Raises DeviceError where the toolkit is missing, and KeyError for an unknown chip."""
        self._multiprocessor = MULTIPROCESSORS[chip]
        self._chip = chip
        self._toolkit = toolkit()
        self._nvrtc = ctypes.CDLL(str(_library(self._toolkit)))
        major, minor = c_int(), c_int()
        self._nvrtc.nvrtcVersion(byref(major), byref(minor))
        version = self._run("ptxas", "--version")
        found = re.search(r"\bV([\d.]+)", version)
        self.version = f"NVRTC {major.value}.{minor.value}, ptxas {found.group(1) if found else 'unknown'}"
        """The compilers and their versions."""

    def compile(self, source: str, entry: str, threads: int) -> ShaderFacts:
        """Return the facts of a kernel of ``source``, launched with so many threads a block.

        Raises CudaError where a compiler refuses the source.
        """
        with tempfile.TemporaryDirectory(prefix="wgtune-cuda-") as folder:
            ptx, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
            ptx.write_bytes(self._ptx(source))
            options = ("-v", f"-arch={self._chip}", f"--entry={entry}", str(ptx), "-o", str(cubin))
            log = self._run("ptxas", *options)
            sass = self._run("nvdisasm", "-c", str(cubin))
        return self._facts(log, sass, entry, threads)

    def _ptx(self, source: str) -> bytes:
        program = c_void_p()
        names = (c_char_p * len(_HEADERS))(*(name.encode() for name in _HEADERS))
        texts = (c_char_p * len(_HEADERS))(*(text.encode() for text in _HEADERS.values()))
        self._call("nvrtcCreateProgram", byref(program), source.encode(), b"kernel.cu", len(_HEADERS), texts, names)
        try:
            options = (c_char_p * 1)(f"--gpu-architecture={self._chip.replace('sm_', 'compute_')}".encode())
            if self._nvrtc.nvrtcCompileProgram(program, 1, options):
                log = self._text("nvrtcGetProgramLog", program).decode(errors="replace").strip().splitlines()
                raise CudaError(f"NVRTC: {log[0] if log else 'it failed without words'}")
            return self._text("nvrtcGetPTX", program)
        finally:
            self._nvrtc.nvrtcDestroyProgram(byref(program))

    def _text(self, name: str, program: c_void_p) -> bytes:
        size = c_size_t()
        self._call(f"{name}Size", program, byref(size))
        text = ctypes.create_string_buffer(max(1, size.value))
        self._call(name, program, text)
        return text.value

    def _call(self, name: str, *arguments: object) -> None:
        if result := getattr(self._nvrtc, name)(*arguments):
            raise CudaError(f"{name} failed with nvrtcResult {result}")

    def _run(self, program: str, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [str(self._toolkit / "bin" / program), *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise CudaError(f"{program}: {failure}") from None
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise CudaError(f"{program}: {words[0] if words else f'exit status {done.returncode}'}")
        return done.stdout + done.stderr

    def _facts(self, log: str, sass: str, entry: str, threads: int) -> ShaderFacts:
        registers = _number(r"Used (\d+) registers", log)
        if registers is None:
            raise CudaError(f"ptxas says nothing of {entry}")
        shared = _number(r"(\d+) bytes smem", log) or 0
        blocks = sass_blocks(sass)
        hot = max(blocks, key=lambda block: block[1], default=(0, 0))
        instructions = sum(count for count, _ in blocks)
        return ShaderFacts(
            vgprs=registers,
            sgprs=0,
            spilled_vgprs=-(-(_number(r"(\d+) bytes spill stores", log) or 0) // 4),
            spilled_sgprs=0,
            scratch_bytes=_WARP * (_number(r"(\d+) bytes stack frame", log) or 0),
            workgroup_bytes=shared,
            waves=self._multiprocessor.warps_per_scheduler(threads, registers, shared),
            instructions=instructions,
            code_bytes=_INSTRUCTION_BYTES * instructions,
            latency_cycles=0,
            inverse_throughput_cycles=0,
            hot_instructions=hot[0],
            hot_multiply_adds=hot[1],
        )


def sass_blocks(sass: str) -> list[tuple[int, int]]:
    """Return instructions and multiply-adds of each block of a disassembly, without the padding behind the code."""
    blocks: list[list[str]] = [[]]
    for line in sass.splitlines():
        if line.lstrip().startswith(".L_") or line.rstrip().endswith(":"):
            blocks.append([])
        elif found := _LINE.match(line):
            blocks[-1].append(found.group(1))
            if _ENDS_BLOCK.match(found.group(1)):
                blocks.append([])
    counted = [[text for text in block if not text.startswith("NOP")] for block in blocks]
    return [(len(block), sum(bool(_MULTIPLY_ADD.match(text)) for text in block)) for block in counted if block]


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else None
