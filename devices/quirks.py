"""Quirks: what is known of one driver, as data, with the reason and where it was seen.

A quirk acts on the devices of its driver alone. For every other device it is as if `QUIRKS` were empty: what is built
or tuned for that device, and how it is measured, does not depend on this module. What is right for every device is no
quirk, even where one driver showed the need for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .device import Device

Version = tuple[int, ...]


@dataclass(frozen=True)
class Quirks:
    """What a driver needs and others do not. Each default asks for nothing.

    Attributes:
        max_thread_iterations: Iterations, of all loops of a thread together, after which the driver ends its loops
            without an error; None for no limit.
        compiles_at_first_dispatch: Whether the driver compiles a program at its first dispatch, an empty one too, and
            not when the pipeline is made.
        pinned_threads: Whether times repeat only when each thread of the driver has a core of its own.
        lanes: Threads of a program that keep the device busy, where they are far fewer than a GPU's; untuned schedules
            are chosen for it.
        wave: Threads that run in step, where they are far fewer than a GPU's; likewise.
        avoids_workgroup_memory: Whether untuned schedules do without workgroup memory as far as possible.
    """

    max_thread_iterations: int | None = None
    compiles_at_first_dispatch: bool = False
    pinned_threads: bool = False
    lanes: int | None = None
    wave: int | None = None
    avoids_workgroup_memory: bool = False


NO_QUIRKS = Quirks()
"""What a device of an unknown driver needs: nothing."""


@dataclass(frozen=True)
class DriverMatch:
    """The drivers that a quirk is of.

    Attributes:
        model: Regular expression for a part of the device's model, in any case.
        backends: Graphics APIs, as in `Device.backend`; all where empty.
        version: Regular expression whose group is the version in the driver's description of itself; "" where that has
            none.
        since: First version with the quirk; all earlier ones have it where empty.
        before: First version without it; all later ones have it where empty.
    """

    model: str
    backends: tuple[str, ...] = ()
    version: str = ""
    since: Version = ()
    before: Version = ()

    def covers(self, backend: str, model: str, driver: str) -> bool:
        """Return whether a device is meant; a driver that does not tell its version counts as one with the quirk."""
        if self.backends and backend not in self.backends:
            return False
        if not re.search(self.model, model, re.IGNORECASE):
            return False
        found = re.search(self.version, driver) if self.version else None
        if found is None:
            return True
        version = tuple(int(part) for part in found.group(1).split("."))
        return version >= self.since and (not self.before or version < self.before)


@dataclass(frozen=True)
class Quirk:
    """One fact about a driver.

    Attributes:
        drivers: Where it holds.
        what: The fact, as a sentence for the user.
        reason: Why the driver is so, as far as known.
        seen: Versions and dates of the observations.
        remedy: What is done about it, as a sentence.
        effect: The remedy as values; without any where nothing acts on it, or what is right for every device suffices.
    """

    drivers: DriverMatch
    what: str
    reason: str
    seen: str
    remedy: str
    effect: Quirks = field(default_factory=Quirks)


_MESA = r"Mesa (\d+(?:\.\d+)*)"
_LLVMPIPE = "llvmpipe|lavapipe"
_SWIFTSHADER = "swiftshader"

QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        drivers=DriverMatch(_LLVMPIPE, version=_MESA),
        what="ends the loops of a thread after 65,535 iterations in all, without an error",
        reason="Its code generator gives all loops of a shader one counter against endless loops (Mesa's "
        "gallivm/lp_bld_limits.h). Each entry of a loop counts once more than its iterations.",
        seen="Mesa 22.3.6 (LLVM 15.0.6), Vulkan and OpenGL, 2026-11: 65,535 additions in a loop are right, 65,536 are "
        "one short. Untuned SD 1.5 drew a wrong picture, whose group norms took 524,291 iterations a thread. "
        "Independently in llama.cpp's pull request 13813.",
        remedy="schedules whose loops may be longer are tried last or not at all",
        effect=Quirks(max_thread_iterations=65535),
    ),
    Quirk(
        drivers=DriverMatch(_LLVMPIPE, backends=("vulkan",), version=_MESA),
        what="compiles a program at its first dispatch, not when its pipeline is made",
        reason="Its shaders are variants of the state at a dispatch. It makes them before it looks at the grid.",
        seen="Mesa 22.3.6, 2026-11: 0.05 s for the pipeline of a long shader, 6.9 s for an empty dispatch of it, 2 ms "
        "for the first one with work.",
        remedy="an empty dispatch, counted as compilation, comes before the first run",
        effect=Quirks(compiles_at_first_dispatch=True),
    ),
    Quirk(
        drivers=DriverMatch(_LLVMPIPE, backends=("gl",), version=_MESA),
        what="compiles a program at its first dispatch with work",
        reason="As on Vulkan, but OpenGL's front end drops an empty dispatch.",
        seen="Mesa 22.3.6, 2026-11: 1 ms for an empty dispatch of a long shader, 4.5 s for the first one with work.",
        remedy="none: the first run, which is not a sample, takes longer",
    ),
    Quirk(
        drivers=DriverMatch(f"{_LLVMPIPE}|{_SWIFTSHADER}", backends=("vulkan", "gl")),
        what="computes in one thread per core, two of which the system may wake on one core",
        reason="Linux lets a thread wake where its waker ran, and keeps it there while the same work is repeated. All "
        "samples of a trial then take twice their time, and nothing within the trial tells.",
        seen="Mesa 22.3.6 and SwiftShader of Chromium 156, Linux on two cores, 2026-11: times moved by up to 99 % "
        "between two sessions, and by 6 % with a core for each thread.",
        remedy="each of its threads is given a core while measuring, on Linux",
        effect=Quirks(pinned_threads=True),
    ),
    Quirk(
        drivers=DriverMatch(f"{_LLVMPIPE}|{_SWIFTSHADER}"),
        what="runs a program on a few vector units of a CPU: many small threads and barriers only cost",
        reason="Each core takes 4 or 8 threads at once. What a thread computes alone stays in the core's registers and "
        "caches; workgroup memory is ordinary memory there, and a barrier saves and restores every thread.",
        seen="Mesa 22.3.6 and SwiftShader of Chromium 156 on two cores, 2026-11, untuned demo model: with these values "
        "a UNet step takes 45 ms instead of 111 on SwiftShader, 33 instead of 36 on llvmpipe.",
        remedy="untuned schedules give each thread more results, and keep what it reads in registers",
        effect=Quirks(lanes=64, wave=8, avoids_workgroup_memory=True),
    ),
    Quirk(
        drivers=DriverMatch(_SWIFTSHADER),
        what="sets workgroup memory to zero element by element, for every four threads",
        reason="WebGPU wants zeros. Chromium leaves them to the driver (VK_KHR_zero_initialize_workgroup_memory), "
        "which writes a store for each element at the start of the program: 10 KiB take a second to compile, and "
        "each four threads of a workgroup run all the stores.",
        seen="SwiftShader of Chromium 156 and Dawn for Node, 2026-11: 79 programs with up to 16 KiB compiled in 24 s, "
        "in 4.8 s without the zeros; a UNet step took 870 ms, and 230 without them. wgpu clears the memory otherwise.",
        remedy="as above: untuned schedules do without workgroup memory where they can",
        effect=Quirks(avoids_workgroup_memory=True),
    ),
    Quirk(
        drivers=DriverMatch(_SWIFTSHADER),
        what="takes gigabytes and a minute to compile dozens of branches in a row",
        reason="Not known. TVM writes a branch for each padded load of a convolution, and unrolling repeats them.",
        seen="SwiftShader of Chromium 156, 2026-11: over 8 GiB and a minute for some convolutions; 0.4 s without "
        "branches.",
        remedy="none of its own: on every device WGSL has `select` for a conditional value, which is shorter",
    ),
)
"""All quirks known. To add one, add it here; what acts on it reads `Quirks`."""


def known_quirks(backend: str, model: str, driver: str = "") -> tuple[Quirk, ...]:
    """Return the quirks of a device by its names as in `Device`; ``driver`` is "" where it is not known."""
    return tuple(quirk for quirk in QUIRKS if quirk.drivers.covers(backend, model, driver))


def combined(quirks: tuple[Quirk, ...]) -> Quirks:
    """Return the effects of ``quirks`` together: the lowest of their numbers, and every remedy."""
    effects = [quirk.effect for quirk in quirks]
    limits = [effect.max_thread_iterations for effect in effects if effect.max_thread_iterations is not None]
    return Quirks(
        max_thread_iterations=min(limits, default=None),
        compiles_at_first_dispatch=any(effect.compiles_at_first_dispatch for effect in effects),
        pinned_threads=any(effect.pinned_threads for effect in effects),
        lanes=min((effect.lanes for effect in effects if effect.lanes is not None), default=None),
        wave=min((effect.wave for effect in effects if effect.wave is not None), default=None),
        avoids_workgroup_memory=any(effect.avoids_workgroup_memory for effect in effects),
    )


def quirks_of(device: Device) -> Quirks:
    """Return what the quirks of ``device``'s driver ask for."""
    return combined(known_quirks(device.backend, device.model, device.driver))
