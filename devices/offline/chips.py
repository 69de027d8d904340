"""Chips that can be compiled for without being there: AMD's by Mesa's RADV, NVIDIA's by NVRTC and ptxas."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.errors import DeviceError, UsageError
from .cuda import toolkit

PREFIX = "compile-only:"
"""How every key of a compile-only device begins, so that nobody takes it for hardware."""

_ICD_FOLDERS = ("/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d")
_MODULE = "wgtune.devices.offline.main"
_CUDA_MODULE = "wgtune.devices.offline.cuda_main"


@dataclass(frozen=True)
class Chip:
    """A chip.

    Attributes:
        name: Short name, as in ``--chip``.
        families: Its names in the driver; those in ``RADV_FORCE_FAMILY`` differ between versions of Mesa.
        architecture: Its maker's name of the instruction set's generation.
        products: Some graphics cards that have it.
        few_waves: Waves a SIMD (warps a scheduler) that are too few to hide memory's latency.
        driver: ``radv`` for AMD's, which compile WGSL; ``cuda`` for NVIDIA's, which compile TVM's CUDA.
    """

    name: str
    families: tuple[str, ...]
    architecture: str
    products: str
    few_waves: int
    driver: Literal["radv", "cuda"] = "radv"

    @property
    def key(self) -> str:
        """Identifier in the database."""
        return f"{PREFIX}{self.driver}-{self.name}"

    @property
    def vendor(self) -> str:
        """Short lower-case name of the maker."""
        return "amd" if self.driver == "radv" else "nvidia"


CHIPS = (
    Chip("vega10", ("vega10",), "GCN 5", "Radeon RX Vega 56, 64", 2),
    Chip("navi10", ("navi10",), "RDNA 1", "Radeon RX 5600, 5700", 4),
    Chip("navi21", ("navi21",), "RDNA 2", "Radeon RX 6800, 6900", 4),
    Chip("gfx1100", ("navi31", "gfx1100"), "RDNA 3", "Radeon RX 7900", 4),
)

"""AMD's chips, which compile WGSL."""

CUDA_CHIPS = (
    Chip("sm_75", ("sm_75",), "Turing", "GeForce RTX 20, T4", 2, "cuda"),
    Chip("sm_80", ("sm_80",), "Ampere", "A100, A30", 4, "cuda"),
    Chip("sm_89", ("sm_89",), "Ada", "GeForce RTX 40, L4, L40", 3, "cuda"),
    Chip("sm_90", ("sm_90",), "Hopper", "H100, H200", 4, "cuda"),
)
"""NVIDIA's chips, which compile TVM's CUDA."""


@dataclass(frozen=True)
class FoundChip:
    """A chip that this machine compiles for: its name in the driver here, and the driver's version."""

    chip: Chip
    family: str
    driver: str


def select_chips(words: list[str] | None) -> list[Chip]:
    """Return the chips that ``words`` name by name, key or architecture; all of AMD's where there are none.

    Raises UsageError, which lists the chips, for a word that names none, and for chips of both makers: what they
    compile differs.
    """
    chosen: list[Chip] = []
    for word in words or []:
        plain = word.strip().lower().replace(" ", "")
        named = [c for c in (*CHIPS, *CUDA_CHIPS) if plain in _names(c)]
        if not named:
            raise UsageError(f"there is no chip {word!r} to compile for", f"there are: {chip_list()}")
        chosen += [chip for chip in named if chip not in chosen]
    if len({chip.driver for chip in chosen}) > 1:
        raise UsageError(
            "AMD's chips compile WGSL and NVIDIA's compile TVM's CUDA, which are no rows of one table",
            "name chips of one maker with --chip",
        )
    return chosen or list(CHIPS)


def _names(chip: Chip) -> set[str]:
    return {*chip.families, chip.name, chip.key, chip.architecture.lower().replace(" ", "")}


def chip_list(chips: Sequence[Chip] = (*CHIPS, *CUDA_CHIPS)) -> str:
    """Return the chips in words."""
    return ", ".join(f"{chip.name} ({chip.architecture})" for chip in chips)


def radv_manifest() -> Path:
    """Return the file by which Vulkan's loader finds RADV.

    Raises DeviceError, in one sentence, where this machine does not have it.
    """
    if not sys.platform.startswith("linux"):
        raise DeviceError("compile-only devices need Linux: Mesa's RADV compiles for AMD chips there")
    for folder in _ICD_FOLDERS:
        for path in sorted(Path(folder).glob("radeon_icd*.json")):
            return path
    raise DeviceError(
        "compile-only devices need Mesa's RADV, which is not installed", "apt-get install mesa-vulkan-drivers"
    )


def start_chip(chip: Chip, timeout_s: float = 30) -> tuple[Child, FoundChip]:
    """Start the process that compiles for ``chip``.

    Raises DeviceError where the driver is missing or cannot compile for it; the driver may have ended the process.
    """
    module, arguments = _command(chip)
    reason = ""
    for family in chip.families:
        child = Child(module, [*arguments, family])
        try:
            answer = child.receive(time.monotonic() + timeout_s)
        except (ChildDied, ChildTimeout) as failure:
            reason = str(failure).strip().splitlines()[-1]
            child.kill()
            continue
        if "refused" in answer:
            reason = str(answer["refused"])
            child.kill()
            continue
        return child, FoundChip(chip, family, str(answer["driver"]))
    driver = "Mesa's RADV does" if chip.driver == "radv" else "NVRTC and ptxas do"
    raise DeviceError(f"{driver} not compile for {chip.name} here: {reason}")


def _command(chip: Chip) -> tuple[str, tuple[str, ...]]:
    """Return the module of the chip's process and its arguments, without the chip's name in the driver."""
    if chip.driver == "cuda":
        toolkit()
        return _CUDA_MODULE, ()
    return _MODULE, (str(radv_manifest()),)


def start_chips(chips: Sequence[Chip]) -> Iterator[tuple[Child, FoundChip]]:
    """Start the processes of several chips at once, and yield them in order. Raises DeviceError as `start_chip`."""
    with ThreadPoolExecutor(len(chips)) as pool:
        yield from [future.result() for future in [pool.submit(start_chip, chip) for chip in chips]]


def find_chips(chips: Sequence[Chip] = CHIPS) -> tuple[list[FoundChip], list[str]]:
    """Return those of ``chips`` that this machine can compile for, and a sentence for each problem."""
    try:
        for chip in chips:
            _command(chip)
    except DeviceError as error:
        return [], [f"{error.message}: {error.hint}" if error.hint else error.message]
    with ThreadPoolExecutor(len(chips)) as pool:
        found = list(pool.map(_find, chips))
    return [one for one in found if isinstance(one, FoundChip)], [one for one in found if isinstance(one, str)]


def _find(chip: Chip) -> FoundChip | str:
    try:
        child, found = start_chip(chip)
    except DeviceError as error:
        return error.message
    child.stop()
    return found
