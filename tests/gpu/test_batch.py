"""Many prompts on several devices: the same pictures as on one, whatever happens to a device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from wgtune.build.runtime.batch import generate_batch
from wgtune.build.runtime.painter import GenerateOptions
from wgtune.build.runtime.prompts import ImageRequest, Prompt, plan_images
from wgtune.cli import app as cli
from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import labels, select_several
from wgtune.support.errors import DeviceError, UsageError

OPTIONS = GenerateOptions(steps=2)


def drawings(folder: Path, count: int = 4) -> list[ImageRequest]:
    return plan_images([Prompt(line, f"picture {line}") for line in range(1, count + 1)], 7, folder)


def pixels(drawing: ImageRequest) -> np.ndarray:
    with Image.open(drawing.path) as png:
        assert png.text["seed"] == str(drawing.seed) and png.text["prompt"] == drawing.prompt
        return np.asarray(png).astype(int)


def drawing_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "wgtune.build.runtime.batch_child" in child.cmdline()]


def test_two_devices_draw_what_one_draws(demo_bundle: Path, two_devices: list[Device], tmp_path: Path) -> None:
    told: list[float] = []
    one, both = drawings(tmp_path / "one"), drawings(tmp_path / "both")
    generate_batch(demo_bundle, one, two_devices[:1], OPTIONS, progress=lambda _, done: told.append(done))
    gallery = generate_batch(demo_bundle, both, two_devices, OPTIONS)
    assert told[-1] == 1 and len(told) > len(one)
    assert sorted(d.request.line for d in gallery.completed) == [1, 2, 3, 4] and gallery.faults == []
    for a, b in zip(one, both, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1
    assert np.abs(pixels(both[0]) - pixels(both[1])).max() > 1
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == [f"000{n}.png" for n in range(1, 5)]
    assert drawing_processes() == []


def test_a_killed_device_loses_no_picture(demo_bundle: Path, two_devices: list[Device], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(what: str, _: float) -> None:
        if "step" in what and not killed:
            victim = drawing_processes()[0]
            killed.append(victim.pid)
            victim.kill()

    gallery = generate_batch(demo_bundle, drawings(tmp_path), two_devices, OPTIONS, progress=kill_once)
    assert killed and len(gallery.completed) == 4 and gallery.failed == []
    assert len(gallery.faults) == 1 and "SIGKILL" in gallery.faults[0][1]


def test_a_device_too_small_leaves_its_share_to_the_others(
    demo_bundle: Path, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(device, key="vulkan:small", limits={**device.limits, "maxStorageBufferBindingSize": 1})
    with pytest.raises(DeviceError, match="maxStorageBufferBindingSize"):
        generate_batch(demo_bundle, drawings(tmp_path, 1), [small], OPTIONS)
    heard: list[str] = []
    gallery = generate_batch(
        demo_bundle, drawings(tmp_path, 2), [small, device], OPTIONS, on_fault=lambda name, _: heard.append(name)
    )
    assert {d.device for d in gallery.completed} == {device.key} and len(gallery.completed) == 2
    assert set(heard) == {"vulkan:small"} and len(heard) <= 2


def test_what_is_there_is_kept_and_never_mistaken(demo_bundle: Path, device: Device, tmp_path: Path) -> None:
    plan = drawings(tmp_path, 2)
    generate_batch(demo_bundle, plan, [device], OPTIONS)
    first, before = plan[0].path.read_bytes(), plan[1].path.stat().st_mtime_ns
    plan[0].path.write_bytes(first[:-500])  # cut short, as by a full disk
    gallery = generate_batch(demo_bundle, plan, [device], OPTIONS)
    assert [d.request.line for d in gallery.completed] == [1] and [d.line for d in gallery.kept] == [2]
    assert np.array_equal(pixels(plan[0]), np.asarray(Image.open(tmp_path / "0001.png")))
    assert plan[1].path.stat().st_mtime_ns == before

    with pytest.raises(UsageError, match=r"0001\.png was drawn with another prompt") as raised:
        generate_batch(demo_bundle, [replace(plan[0], prompt="another")], [device], OPTIONS)
    assert "--overwrite" in raised.value.hint
    with pytest.raises(UsageError, match="another steps"):
        generate_batch(demo_bundle, plan, [device], GenerateOptions(steps=4))
    anew = generate_batch(demo_bundle, [replace(plan[0], prompt="another")], [device], OPTIONS, overwrite=True)
    assert len(anew.completed) == 1 and Image.open(plan[0].path).text["prompt"] == "another"


def test_the_command(demo_bundle: Path, device: Device, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"a fox\n\xff\na cat\n")
    words = ["--prompts", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "out"), "--steps", "3", "--seed", "40"]
    result = CliRunner().invoke(
        cli.app, ["generate", "--bundle", str(demo_bundle), *words, "-d", device.key, "--contact-sheet", "--json"]
    )
    assert result.exit_code == 1, result.output  # the bad line
    data = json.loads(result.stdout)
    assert [(d["line"], d["seed"]) for d in data["drawn"]] == [(1, 41), (3, 43)] and data["undrawn"] == []
    assert [line["line"] for line in data["bad_lines"]] == [2] and "line 2" in result.stderr
    with Image.open(data["contact_sheet"]) as sheet:
        assert sheet.width > 256
    for words in ([], ["--prompt", "x", "--prompts", "y"]):
        with pytest.raises(UsageError, match="one of --prompt and --prompts"):
            CliRunner().invoke(cli.app, ["generate", "--bundle", str(demo_bundle), *words], catch_exceptions=False)


def test_all_means_every_gpu_once(two_devices: list[Device]) -> None:
    gl = replace(two_devices[0], key="gl:llvmpipe", backend="gl", features=())
    assert select_several(["all"], [gl, *two_devices]) == two_devices
    assert select_several([f"{two_devices[1].key},#0", "#0"], two_devices) == two_devices[::-1]
    hardware = replace(two_devices[0], key="vulkan:gpu", model="GPU", software=False, adapter_type="discrete", index=0)
    twin = replace(hardware, index=1)
    through_d3d12 = replace(hardware, key="d3d12:gpu", backend="d3d12")
    assert select_several(["all"], [through_d3d12, hardware, twin, *two_devices]) == [hardware, twin]
    assert labels([hardware, twin, *two_devices])[:3] == ["vulkan:gpu [0]", "vulkan:gpu [1]", two_devices[0].key]
    with pytest.raises(DeviceError):
        select_several(["all"], [])
