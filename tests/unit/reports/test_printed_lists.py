"""What `devices`, `kernels` and `db` print."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from report_database import fill
from rich.console import Console
from synthetic_store import CAPTURE, LLVMPIPE

from wgtune.database.exchange import admin
from wgtune.database.schema.migrate import known_revisions
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.reports.listings.database import print_database, print_problems, print_upgrade
from wgtune.reports.listings.devices import print_devices
from wgtune.reports.listings.kernels import print_kernels
from wgtune.support.enums import Runtime
from wgtune.tuner.capture.kernel_table import KernelRow

LATEST = known_revisions()[-1]
DEVICE = Device(
    key="vulkan:llvmpipe",
    backend="Vulkan",
    vendor="Mesa",
    architecture="",
    model="llvmpipe (LLVM 15.0.6, 256 bits)",
    driver="llvmpipe Mesa 22.3.6",
    adapter_type="CPU",
    software=True,
    limits={"maxComputeInvocationsPerWorkgroup": 1024, "maxStorageBufferBindingSize": 128 << 20},
    features=("timestamp-query", "shader-f16"),
    runtime=Runtime.WGPU,
    index=0,
)
KERNELS = [
    KernelRow("conv2d_add_33445566", "3" * 64, "unet", 60, "1×4×64×64 -> 1×320×64×64", 9.25, 30.5, 303.0, 0.75),
    KernelRow("softmax_5e6f7a8b", "5" * 64, "unet", 80, "8×77×77", 0.001, 2.0, 0.5, 0.25),
]


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200, force_terminal=False)


def test_devices(console):
    print_devices([DEVICE], json=False, console=console)
    text = console.file.getvalue()
    assert all(word in text for word in ("vulkan:llvmpipe", "software", "1024", "128 MiB", "timestamps", "—"))


def test_devices_as_json(console):
    print_devices([DEVICE], json=True, console=console)
    [found] = json.loads(console.file.getvalue())
    quirks = found.pop("quirks")
    assert Device.from_json(found) == DEVICE
    assert any("65,535 iterations" in quirk["what"] for quirk in quirks)
    assert all(set(quirk) == {"what", "reason", "seen", "remedy"} and all(quirk.values()) for quirk in quirks)


def test_devices_are_followed_by_their_quirks_alone(console):
    real = replace(DEVICE, key="vulkan:gpu", model="GPU 1", driver="1.0", software=False, adapter_type="discrete")
    print_devices([DEVICE, real], json=False, console=console)
    lines = [line for line in console.file.getvalue().splitlines() if "iterations" in line]
    assert [line.split()[0] for line in lines] == [DEVICE.key]


def test_kernels(console):
    print_kernels(KERNELS, limit=1, json=False, console=console)
    text = console.file.getvalue()
    assert "conv2d_add_33445566" in text and "softmax" not in text and "75.0" in text
    assert "1 more row: --limit 2 shows all" in text and "2 kernels, 140 launches, 555 GFLOP" in text


def test_kernels_as_json(console):
    print_kernels(KERNELS, limit=None, json=True, console=console)
    found = json.loads(console.file.getvalue())
    assert [row["name"] for row in found] == [row.name for row in KERNELS] and found[0]["gflop"] == 9.25


@pytest.fixture
def path(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as store:
        fill(store)
    return tmp_path / "x.db"


def test_database(path, console):
    print_database(admin.info(str(path)), json=False, console=console)
    text = console.file.getvalue()
    assert str(path) in text and f"revision {LATEST}" in text and "1 completed" in text and CAPTURE[:12] in text
    heading, row = text.splitlines()[-2:]
    assert heading.split() == [
        "device",
        "ok",
        "build",
        "error",
        "run",
        "timeout",
        "wrong",
        "result",
        "abandoned",
        "total",
    ]
    assert row.split() == [LLVMPIPE.key, "7", "2", "1", "1", "1", "12"]


def test_database_as_json(path, console):
    print_database(admin.info(str(path)), json=True, console=console)
    found = json.loads(console.file.getvalue())
    assert found["trials"][LLVMPIPE.key]["ok"] == 7 and found["models"][0]["capture_key"] == CAPTURE


def test_upgrades_and_problems(path, console):
    print_upgrade(admin.upgrade(str(path)), json=False, console=console)
    print_upgrade(admin.Upgrade("x.db", "0001", "0002"), json=False, console=console)
    print_problems([], json=False, console=console)
    print_problems(["one", "two"], json=False, console=console)
    assert console.file.getvalue().splitlines() == [
        f"{path} is up to date: schema revision {LATEST}",
        "x.db: schema revision 0001 → 0002",
        "the database is whole",
        "one",
        "two",
    ]


def test_problems_as_json(console):
    print_problems(["one"], json=True, console=console)
    assert json.loads(console.file.getvalue()) == ["one"]
