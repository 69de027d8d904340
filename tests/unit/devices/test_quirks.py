"""A quirk acts on the devices of its driver, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgtune.devices import quirks
from wgtune.devices.device import Device
from wgtune.devices.quirks import DriverMatch, Quirk, Quirks, combined, known_quirks, quirks_of
from wgtune.support.enums import Runtime

GPU = Device("vulkan:gpu-1", "vulkan", "v", "a", "GPU 1", "Maker 7.2.1", "discrete", False, {}, (), Runtime.WGPU, 0)
LLVMPIPE = replace(GPU, model="llvmpipe", driver="Mesa 22.3.6 (LLVM 15.0.6)", adapter_type="cpu", software=True)
SWIFTSHADER = replace(LLVMPIPE, model="SwiftShader Device", driver="SwiftShader driver")


def quirk(drivers: DriverMatch, **effect: object) -> Quirk:
    return Quirk(drivers, "what", "reason", "seen", "remedy", Quirks(**effect))  # type: ignore[arg-type]


def test_what_is_known_of_software_adapters() -> None:
    cpu = Quirks(lanes=64, wave=8, avoids_workgroup_memory=True)
    assert quirks_of(LLVMPIPE) == replace(
        cpu, max_thread_iterations=65535, compiles_at_first_dispatch=True, pinned_threads=True
    )
    assert quirks_of(replace(LLVMPIPE, backend="gl", driver="4.5 (Core Profile) Mesa 22.3.6")) == replace(
        cpu, max_thread_iterations=65535, pinned_threads=True
    )
    assert quirks_of(replace(LLVMPIPE, backend="browser", driver="chrome 156")) == replace(
        cpu, max_thread_iterations=65535
    )
    assert quirks_of(SWIFTSHADER) == replace(cpu, pinned_threads=True)
    assert quirks_of(replace(SWIFTSHADER, backend="browser", model="google swiftshader")) == cpu


@pytest.mark.parametrize(
    "model",
    [
        "NVIDIA H200",
        "AMD Radeon RX 6800",
        "Apple M3",
        "Mesa Intel UHD Graphics 620",
        "Adreno 740",
        "Microsoft Basic Render Driver",
    ],
)
@pytest.mark.parametrize("software", [False, True])
def test_no_other_device_has_a_quirk(model: str, software: bool) -> None:
    for driver in ("Mesa 22.3.6", "550.54", ""):
        assert not known_quirks("vulkan", model, driver)
        assert quirks_of(replace(GPU, model=model, driver=driver, software=software)) == Quirks()


def test_a_quirk_of_a_made_up_driver_acts_on_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = quirks_of(LLVMPIPE)
    made_up = quirk(DriverMatch("gpu 1", ("vulkan",), r"Maker (\d+(?:\.\d+)*)", (7,), (8,)), max_thread_iterations=100)
    monkeypatch.setattr(quirks, "QUIRKS", (*quirks.QUIRKS, made_up))
    assert quirks_of(GPU) == Quirks(max_thread_iterations=100)
    assert quirks_of(LLVMPIPE) == before
    assert quirks_of(replace(GPU, model="GPU 2")) == Quirks()
    assert quirks_of(replace(GPU, backend="metal")) == Quirks()


@pytest.mark.parametrize(
    ("driver", "covered"),
    [
        ("Maker 6.9", False),
        ("Maker 7", False),
        ("Maker 7.1", True),
        ("Maker 7.1.0", True),
        ("Maker 7.10", True),
        ("Maker 8.1.9 (build 2)", True),
        ("Maker 8.2", False),
        ("Maker 8.2.0", False),
        ("Maker 10", False),
        ("Maker", True),
        ("", True),
    ],
)
def test_versions_are_compared_as_numbers_and_an_unknown_one_has_the_quirk(driver: str, covered: bool) -> None:
    match = DriverMatch("GPU", version=r"Maker (\d+(?:\.\d+)*)", since=(7, 1), before=(8, 2))
    assert match.covers("vulkan", "GPU 1", driver) is covered


def test_effects_add_up_to_the_lowest_limit() -> None:
    match = DriverMatch("x")
    some = (quirk(match, max_thread_iterations=9), quirk(match, pinned_threads=True), quirk(match))
    assert combined(some) == Quirks(9, False, True)
    assert combined((*some, quirk(match, max_thread_iterations=3))).max_thread_iterations == 3
    assert combined(()) == Quirks()


def test_every_quirk_says_why_and_where_it_was_seen() -> None:
    for one in quirks.QUIRKS:
        assert one.what and one.remedy and len(one.reason) > 10 and "20" in one.seen
