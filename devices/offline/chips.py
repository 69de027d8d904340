"""AMD chips that Mesa's RADV can compile for, and which of them this machine can."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.errors import DeviceError, UsageError

PREFIX = "compile-only:"
"""How every key of a compile-only device begins, so that nobody takes it for hardware."""

_ICD_FOLDERS = ("/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d")
_MODULE = "wgtune.devices.offline.main"


@dataclass(frozen=True)
class Chip:
    """An AMD chip.

    Attributes:
        name: Short name, as in ``--chip``.
        families: Its names in ``RADV_FORCE_FAMILY``, which differ between versions of Mesa.
        architecture: AMD's name of the instruction set's generation.
        products: Some graphics cards that have it.
        few_waves: Waves a SIMD that are too few to hide memory's latency.
    """

    name: str
    families: tuple[str, ...]
    architecture: str
    products: str
    few_waves: int

    @property
    def key(self) -> str:
        """Identifier in the database."""
        return f"{PREFIX}radv-{self.name}"


CHIPS = (
    Chip("vega10", ("vega10",), "GCN 5", "Radeon RX Vega 56, 64", 2),
    Chip("navi10", ("navi10",), "RDNA 1", "Radeon RX 5600, 5700", 4),
    Chip("navi21", ("navi21",), "RDNA 2", "Radeon RX 6800, 6900", 4),
    Chip("gfx1100", ("navi31", "gfx1100"), "RDNA 3", "Radeon RX 7900", 4),
)


@dataclass(frozen=True)
class FoundChip:
    """A chip that this machine compiles for: its name in ``RADV_FORCE_FAMILY`` here, and the driver's version."""

    chip: Chip
    family: str
    driver: str


def select_chips(words: list[str] | None) -> list[Chip]:
    """Return the chips that ``words`` name by name, key or architecture; all where there are none.

    Raises UsageError, which lists the chips, for a word that names none.
    """
    chosen: list[Chip] = []
    for word in words or []:
        plain = word.strip().lower().removeprefix(PREFIX).removeprefix("radv-").replace(" ", "")
        named = [c for c in CHIPS if plain in (*c.families, c.name, c.architecture.lower().replace(" ", ""))]
        if not named:
            raise UsageError(f"there is no chip {word!r} to compile for", f"there are: {chip_list()}")
        chosen += [chip for chip in named if chip not in chosen]
    return chosen or list(CHIPS)


def chip_list() -> str:
    """Return the chips in words."""
    return ", ".join(f"{chip.name} ({chip.architecture})" for chip in CHIPS)


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

    Raises DeviceError where RADV is missing or cannot compile for it; the driver may have ended the process.
    """
    manifest = radv_manifest()
    reason = ""
    for family in chip.families:
        child = Child(_MODULE, [str(manifest), family])
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
    raise DeviceError(f"Mesa's RADV does not compile for {chip.name} here: {reason}")


def start_chips(chips: Sequence[Chip]) -> Iterator[tuple[Child, FoundChip]]:
    """Start the processes of several chips at once, and yield them in order. Raises DeviceError as `start_chip`."""
    with ThreadPoolExecutor(len(chips)) as pool:
        yield from [future.result() for future in [pool.submit(start_chip, chip) for chip in chips]]


def find_chips(chips: Sequence[Chip] = CHIPS) -> tuple[list[FoundChip], list[str]]:
    """Return those of ``chips`` that this machine can compile for, and a sentence for each problem."""
    try:
        radv_manifest()
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
