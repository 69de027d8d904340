"""Compile-only chips: their names, and what is said where they cannot be had."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from wgtune.devices.offline import chips, devtools, translation
from wgtune.devices.offline.chips import CHIPS, FoundChip, find_chips, radv_manifest, select_chips, start_chip
from wgtune.devices.offline.compiler import installed_compiler
from wgtune.reports.listings.devices import print_devices
from wgtune.support.console import InertConsole
from wgtune.support.errors import DeviceError, UsageError

LINUX_ONLY = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compile-only devices need Linux")


def test_no_key_can_be_taken_for_hardware() -> None:
    assert [chip.key for chip in CHIPS] == [
        "compile-only:radv-vega10",
        "compile-only:radv-navi10",
        "compile-only:radv-navi21",
        "compile-only:radv-gfx1100",
    ]


def test_chips_are_selected_by_name_key_family_or_architecture() -> None:
    assert select_chips(None) == select_chips([]) == list(CHIPS)
    vega, _, navi21, gfx1100 = CHIPS
    assert select_chips(["navi21", "gfx1100"]) == [navi21, gfx1100]
    assert select_chips(["compile-only:radv-navi21", "RDNA 2", "rdna2"]) == [navi21]
    assert select_chips(["navi31", "GCN5"]) == [gfx1100, vega]


def test_an_unknown_chip_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError) as refused:
        select_chips(["navi99"])
    assert "navi99" in refused.value.message and "gfx1100 (RDNA 3)" in refused.value.hint


def test_without_linux_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found, problems = find_chips()
    assert not found and len(problems) == 1 and "need Linux" in problems[0]


@LINUX_ONLY
def test_without_radv_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chips, "_ICD_FOLDERS", (str(tmp_path),))
    found, problems = find_chips()
    assert not found and len(problems) == 1
    assert "RADV" in problems[0] and "apt-get install mesa-vulkan-drivers" in problems[0]
    (tmp_path / "radeon_icd.x86_64.json").write_text("{}")
    assert radv_manifest() == tmp_path / "radeon_icd.x86_64.json"


@LINUX_ONLY
def test_a_driver_that_is_not_there_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Vulkan's loader ignores an ICD whose library is missing, or is missing itself."""
    manifest = {"file_format_version": "1.0.0", "ICD": {"library_path": "/nowhere.so", "api_version": "1.3.0"}}
    (tmp_path / "radeon_icd.x86_64.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(chips, "_ICD_FOLDERS", (str(tmp_path),))
    with pytest.raises(DeviceError, match="does not compile for navi21 here"):
        start_chip(CHIPS[2])


@LINUX_ONLY
def test_without_a_browser_one_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "find_assembler", lambda: "spirv-as")
    monkeypatch.setenv("WGTUNE_CHROMIUM", "/nowhere/chrome")
    with pytest.raises(DeviceError) as refused:
        devtools.find_chromium()
    assert "/nowhere/chrome" in refused.value.message and "apt-get install chromium" in refused.value.hint


def test_without_spirv_tools_one_sentence_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(translation.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError) as refused:
        installed_compiler(CHIPS)
    assert "spirv-as" in refused.value.message and "wgtune[compiled]" in refused.value.hint


def test_the_assembler_of_the_package_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "cmeel.prefix" / "bin" / "spirv-as"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(translation.sysconfig, "get_path", lambda name: str(tmp_path))
    assert translation.find_assembler() == str(program)


def listed(capsys: pytest.CaptureFixture[str], found: list[FoundChip], missing: list[str], *, as_json: bool) -> str:
    print_devices([], found, missing, json=as_json, console=InertConsole(width=200, highlight=False))
    return capsys.readouterr().out


def test_they_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = [FoundChip(chip, chip.name, "Mesa 22.3.6") for chip in CHIPS]
    out = listed(capsys, found, [], as_json=False)
    assert "compile only: no time is ever measured" in out
    assert all(chip.key in out and chip.architecture in out for chip in CHIPS)
    rows = json.loads(listed(capsys, found, [], as_json=True))
    assert [(row["key"], row["compile_only"], "runtime" in row) for row in rows] == [
        (c.key, True, False) for c in CHIPS
    ]


def test_the_listing_says_why_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Compile only: RADV is missing" in listed(capsys, [], ["RADV is missing"], as_json=False)
    assert json.loads(listed(capsys, [], ["RADV is missing"], as_json=True)) == []
