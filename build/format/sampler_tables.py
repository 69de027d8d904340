"""The tables of a sampler's runs, and the names of samplers (docs/bundle.md, "Scheduler tables")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np

from ...support.errors import BundleError
from .manifest import MOST_STATES, RunInfo


class Sampler(str, Enum):
    """The samplers that a bundle can hold; the value is the name in manifests and on the command line."""

    DDIM = "ddim"
    DDPM = "ddpm"
    PNDM = "pndm"
    EULER = "euler"
    EULER_A = "euler-a"
    HEUN = "heun"
    LMS = "lms"
    DPM2 = "dpm2"
    DPM2_A = "dpm2-a"
    DPMPP_2S = "dpmpp-2s"
    DPMPP_2M = "dpmpp-2m"
    DPMPP_2M_SDE = "dpmpp-2m-sde"
    DPMPP_SDE = "dpmpp-sde"
    UNIPC = "unipc"
    DEIS = "deis"
    SA_SOLVER = "sa-solver"
    LCM = "lcm"
    TCD = "tcd"

    @property
    def label(self) -> str:
        """The name that people know it by."""
        return _SAMPLERS[self][0]

    @property
    def class_name(self) -> str:
        """Name of the diffusers class, which two samplers may share."""
        return _SAMPLERS[self][1]


_SAMPLERS = {
    Sampler.DDIM: ("DDIM", "DDIMScheduler"),
    Sampler.DDPM: ("DDPM", "DDPMScheduler"),
    Sampler.PNDM: ("PNDM", "PNDMScheduler"),
    Sampler.EULER: ("Euler", "EulerDiscreteScheduler"),
    Sampler.EULER_A: ("Euler a", "EulerAncestralDiscreteScheduler"),
    Sampler.HEUN: ("Heun", "HeunDiscreteScheduler"),
    Sampler.LMS: ("LMS", "LMSDiscreteScheduler"),
    Sampler.DPM2: ("DPM2", "KDPM2DiscreteScheduler"),
    Sampler.DPM2_A: ("DPM2 a", "KDPM2AncestralDiscreteScheduler"),
    Sampler.DPMPP_2S: ("DPM++ 2S", "DPMSolverSinglestepScheduler"),
    Sampler.DPMPP_2M: ("DPM++ 2M", "DPMSolverMultistepScheduler"),
    Sampler.DPMPP_2M_SDE: ("DPM++ 2M SDE", "DPMSolverMultistepScheduler"),
    Sampler.DPMPP_SDE: ("DPM++ SDE", "DPMSolverSDEScheduler"),
    Sampler.UNIPC: ("UniPC", "UniPCMultistepScheduler"),
    Sampler.DEIS: ("DEIS", "DEISMultistepScheduler"),
    Sampler.SA_SOLVER: ("SA-Solver", "SASolverScheduler"),
    Sampler.LCM: ("LCM", "LCMScheduler"),
    Sampler.TCD: ("TCD", "TCDScheduler"),
}
"""Each sampler's label and diffusers class."""

_OTHER_NAMES = {"dpmsolver": Sampler.DPMPP_2M, "plms": Sampler.PNDM}


class NoiseLevels(str, Enum):
    """How a sampler may space its noise levels, other than by the model's training steps."""

    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"

    @property
    def label(self) -> str:
        """The word that labels end in."""
        return "Karras" if self is NoiseLevels.KARRAS else self.value

    @property
    def setting(self) -> str:
        """Name of the setting in diffusers' configurations."""
        return f"use_{self.value}_sigmas"


@dataclass(frozen=True)
class SamplerVariant:
    """A sampler with noise levels of its own, whatever the model's configuration says of them."""

    sampler: Sampler
    levels: NoiseLevels

    @property
    def value(self) -> str:
        """The name in manifests and on the command line."""
        return f"{self.sampler.value}-{self.levels.value}"

    @property
    def label(self) -> str:
        """The name that people know it by."""
        return f"{self.sampler.label} {self.levels.label}"

    @property
    def class_name(self) -> str:
        """Name of the diffusers class."""
        return self.sampler.class_name


AnySampler = Sampler | SamplerVariant

_OFTEN_KARRAS = (Sampler.DPMPP_2M, Sampler.DPMPP_2M_SDE, Sampler.DPMPP_SDE)

USUAL_SAMPLERS: tuple[AnySampler, ...] = (
    *Sampler,
    *(SamplerVariant(sampler, NoiseLevels.KARRAS) for sampler in _OFTEN_KARRAS),
)
"""The samplers of a bundle where none are chosen: all, and those with Karras' noise levels that people choose most."""


@dataclass(frozen=True, eq=False)
class SamplerRun:
    """One sampling run of C model calls, as a recurrence of S states.

    - ``timesteps``: float32 [C], the UNet's inputs
    - ``draws``: bool [C + 1]: before row i is applied, a latent's worth of standard normal numbers is drawn
    - ``intervals``: None where all come from the seed's stream. Otherwise float32 [C + 1, 2]: row 0, which draws from
      the stream, has the ends of a Brownian motion, each other row that draws the two times between which it draws the
      increment, the later one first
    - ``rows``: float32 [C + 1, S, 2 + S]: row i gives the states of call i from the numbers drawn last, the output of
      call i - 1 and the states of call i - 1. State 0 is what call i receives, and after row C the final latent.
    """

    timesteps: np.ndarray
    draws: np.ndarray
    rows: np.ndarray
    intervals: np.ndarray | None = None

    @property
    def calls(self) -> int:
        """C, the number of UNet calls."""
        return len(self.timesteps)

    @property
    def states(self) -> int:
        """S, the number of states."""
        return self.rows.shape[1]


@dataclass
class SamplerTable:
    """All runs of one sampler, by number of inference steps; ``refused`` says why a number of steps has none."""

    sampler: AnySampler
    label: str
    runs: dict[int, SamplerRun] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def noise(self) -> Literal["stream", "brownian"]:
        """What its rows draw."""
        return "stream" if all(run.intervals is None for run in self.runs.values()) else "brownian"


def find_sampler(name: str) -> AnySampler:
    """Return the sampler with this name, label or diffusers class name; BundleError lists the known ones.

    A name may end in ``-karras``, ``-exponential`` or ``-beta``. Spelling is free: ``DPM++ 2M Karras``,
    ``dpmpp_2m_karras`` and ``dpmpp-2m-karras`` are one.
    """
    plain = re.sub(r"[\s_]+", "-", name.strip().lower().replace("++", "pp")).removeprefix("k-")
    plain = plain.replace("dpm-2", "dpm2").replace("-ancestral", "-a")
    for levels in NoiseLevels:
        if plain.endswith(f"-{levels.value}"):
            found = find_sampler(plain.removesuffix(f"-{levels.value}"))
            if isinstance(found, Sampler):
                return SamplerVariant(found, levels)
    for sampler in Sampler:
        if plain == sampler.value or name == sampler.class_name:
            return sampler
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    known = ", ".join(s.value for s in Sampler)
    raise BundleError(
        f"there is no sampler {name!r}", f"known samplers: {known}; some also with -karras behind the name"
    )


def class_sampler(class_name: str) -> Sampler | None:
    """Return the first sampler of a diffusers class; None where there is none."""
    return next((sampler for sampler in Sampler if sampler.class_name == class_name), None)


def pack_table(table: SamplerTable, position: int = 0) -> tuple[bytes, dict[int, RunInfo]]:
    """Return a table's bytes, and where each run lies in a file that has them from float32 element ``position`` on."""
    parts, places = [], {}
    for steps, run in sorted(table.runs.items()):
        places[steps] = RunInfo(position, run.calls, run.states)
        columns = [np.stack([np.append(run.timesteps, 0), run.draws], axis=1)]
        columns += [] if run.intervals is None else [run.intervals]
        parts.append(np.concatenate([*columns, run.rows.reshape(run.calls + 1, -1)], axis=1).reshape(-1))
        position += parts[-1].size
    return np.concatenate(parts).astype("<f4").tobytes(), places


def unpack_run(data: np.ndarray, info: RunInfo, brownian: bool = False) -> SamplerRun:
    """Return the run at ``info`` of a table file's float32 elements; ``brownian`` as `TableInfo.noise` says.

    Raises:
        BundleError: the file ends before the run does.
    """
    head = 4 if brownian else 2
    width = head + info.states * (info.states + 2)
    end = info.offset + (info.calls + 1) * width
    if end > data.size:
        raise BundleError(f"a scheduler table has {data.size} numbers where {end} are needed", "build it again")
    rows = data[info.offset : end].astype(np.float32).reshape(info.calls + 1, width)
    coefficients = np.ascontiguousarray(rows[:, head:]).reshape(-1, info.states, info.states + 2)
    intervals = rows[:, 2:4] if brownian else None
    return SamplerRun(np.ascontiguousarray(rows[:-1, 0]), rows[:, 1] != 0, coefficients, intervals)


def format_ranges(numbers: Sequence[int]) -> str:
    """Return ascending ``numbers`` for a message: ``1-20, 25, 50``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


__all__ = [
    "MOST_STATES",
    "USUAL_SAMPLERS",
    "AnySampler",
    "NoiseLevels",
    "Sampler",
    "SamplerRun",
    "SamplerTable",
    "SamplerVariant",
    "class_sampler",
    "find_sampler",
    "format_ranges",
    "pack_table",
    "unpack_run",
]
