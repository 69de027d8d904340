"""A kernel without a record of its own gets the nearest relative's, labelled as such."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from synthetic_store import CLAMP, CONV, EMBED, LLVMPIPE, MATMUL, SOFTMAX, add_demo, measure, ok, session

from wgtune.database.device_identity import Alias
from wgtune.database.queries.transfer_lookup import lookup, matches, related_schedules
from wgtune.database.schema.records import AliasLevel, DeviceInfo, Runtime, TrialKind
from wgtune.database.store import Store
from wgtune.support.enums import Match


def gpu(key: str, model: str, vendor: str = "nvidia", architecture: str = "") -> DeviceInfo:
    return DeviceInfo(key, key.split(":")[0], vendor, architecture, model, False)


HERE = gpu("vulkan:rtx-3060", "NVIDIA GeForce RTX 3060")
TWIN = gpu("d3d12:rtx-3060", "NVIDIA GeForce RTX 3060")
COUSIN = gpu("vulkan:rtx-3090", "NVIDIA GeForce RTX 3090")
COUSIN_2 = gpu("vulkan:rtx-3080", "NVIDIA GeForce RTX 3080")
VENDOR = gpu("vulkan:rtx-4090", "NVIDIA GeForce RTX 4090")
OTHER = gpu("vulkan:rx-7600", "AMD Radeon RX 7600", "amd", "navi33")
PAGE = gpu("browser:nvidia-ampere", "", "nvidia", "ampere")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def trials(store, device, kernel, baseline_s, runtime=Runtime.WGPU, **schedules):
    """A baseline and schedules by name, in seconds."""
    number = store.begin_session(session(device, runtime=runtime))
    if baseline_s:
        measure(store, number, kernel, ok(baseline_s), "base", TrialKind.BASELINE)
    for trace, seconds in schedules.items():
        measure(store, number, kernel, ok(seconds), trace)


def test_every_step_in_order_and_labelled(store):
    trials(store, HERE, MATMUL, 4.0, own=3.0)
    for kernel, lenders in {
        MATMUL: (TWIN, COUSIN, VENDOR, OTHER),
        CONV: (TWIN, COUSIN, VENDOR, OTHER),
        SOFTMAX: (COUSIN, VENDOR, OTHER),
        EMBED: (VENDOR, OTHER),
        CLAMP: (OTHER,),
    }.items():
        for lender in lenders:
            trials(store, lender, kernel, 4.0, **{lender.key: 0.5})
    ids = [kernel.id for kernel in (MATMUL, CONV, SOFTMAX, EMBED, CLAMP)]
    found = lookup(store, HERE, ids)
    assert [(found[i].match, found[i].device) for i in ids] == [
        (Match.EXACT, HERE),
        (Match.MODEL, TWIN),
        (Match.ARCHITECTURE, COUSIN),
        (Match.VENDOR, VENDOR),
        (Match.PORTABLE, OTHER),
    ]
    assert not found[MATMUL.id].match.borrowed and found[CONV.id].match.borrowed
    assert found[CONV.id].record.device_key == TWIN.key and found[CONV.id].speedup == pytest.approx(8)
    for count, widest in enumerate(Match, 1):
        assert list(lookup(store, HERE, ids, widest=widest)) == ids[:count]


def test_a_borrowed_record_is_none_of_this_device(store):
    trials(store, TWIN, CONV, 4.0, fast=1.0)
    store.begin_session(session(HERE))
    assert lookup(store, HERE, [CONV.id])[CONV.id].match is Match.MODEL
    assert store.best(HERE.key, [CONV.id]) == {} and store.counts(HERE.key, [CONV.id]) == {}


def test_a_browser_that_knows_its_architecture_only(store):
    trials(store, COUSIN, CONV, 4.0, fast=1.0)
    trials(store, TWIN, CONV, 4.0, faster=0.5)
    found = lookup(store, PAGE, [CONV.id], Runtime.BROWSER)[CONV.id]
    assert found.match is Match.ARCHITECTURE and found.device == TWIN


def test_the_same_device_measured_another_way_is_the_same_model(store):
    trials(store, HERE, CONV, 4.0, Runtime.BROWSER, fast=1.0)
    assert lookup(store, HERE, [CONV.id])[CONV.id].match is Match.MODEL
    trials(store, HERE, MATMUL, 4.0, Runtime.TVM_CUDA, fast=1.0)
    assert lookup(store, HERE, [MATMUL.id]) == {}


def test_speed_up_ranks_not_time(store):
    trials(store, COUSIN, CONV, 2.0, quick=1.0)
    trials(store, COUSIN_2, CONV, 40.0, slow=4.0)
    assert lookup(store, HERE, [CONV.id])[CONV.id].record.trace == "slow"


def test_several_devices_by_the_geometric_mean(store):
    trials(store, COUSIN, CONV, 12.0, one=4.0, two=4.8)  # 3 and 2.5 times
    trials(store, COUSIN_2, CONV, 12.0, one=24.0, two=6.0)  # 0.5 and 2 times
    first, second = related_schedules(store, HERE, [CONV.id])[CONV.id]
    assert (first.record.trace, first.devices, second.record.trace, second.devices) == ("two", 2, "one", 2)
    assert first.speedup == pytest.approx(5**0.5) and second.speedup == pytest.approx(1.5**0.5)


def test_without_a_baseline_a_schedule_comes_last(store):
    trials(store, COUSIN, CONV, None, unknown=1e-9)
    trials(store, COUSIN_2, CONV, 4.0, known=2.0)
    ranked = related_schedules(store, HERE, [CONV.id])[CONV.id]
    assert [(one.record.trace, one.speedup) for one in ranked] == [("known", 2.0), ("unknown", None)]


def test_what_does_not_fit_is_passed_over(store):
    trials(store, COUSIN, CONV, 4.0, fast=1.0)
    assert lookup(store, HERE, [CONV.id], fits=lambda needs: needs["threads"] < 64) == {}
    assert CONV.id in lookup(store, HERE, [CONV.id], fits=lambda needs: needs["threads"] <= 64)


def test_software_and_hardware_never_lend_to_each_other(store):
    trials(store, LLVMPIPE, CONV, 4.0, fast=1.0)
    assert lookup(store, HERE, [CONV.id]) == {} and matches(store, HERE) == {}
    swiftshader = DeviceInfo("vulkan:swiftshader", "vulkan", "google", "", "SwiftShader Device", True)
    assert lookup(store, swiftshader, [CONV.id])[CONV.id].match is Match.PORTABLE


def test_one_family_name_is_not_one_model(store):
    here = gpu("vulkan:amd-radeon-graphics-renoir", "AMD Radeon Graphics", "amd", "renoir")
    other = gpu("vulkan:amd-radeon-graphics-raven", "AMD Radeon Graphics", "amd", "raven")
    trials(store, other, CONV, 4.0, fast=1.0)
    assert matches(store, here) == {other.key: Match.ARCHITECTURE}


def test_an_alias_of_the_users_changes_who_is_related(store):
    trials(store, OTHER, CONV, 4.0, fast=1.0)
    store.add_alias(Alias(AliasLevel.MODEL, "NVIDIA GeForce RTX 3060", "amd", "rdna-3", "amd radeon rx 7600"))
    assert lookup(store, HERE, [CONV.id])[CONV.id].match is Match.MODEL


def test_no_query_for_each_kernel(store):
    for kernel in (MATMUL, CONV, SOFTMAX, EMBED, CLAMP):
        for lender in (COUSIN, COUSIN_2):
            trials(store, lender, kernel, 4.0, **{lender.key: 1.0})
    seen: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    lookup(store, HERE, [CONV.id], fits=lambda needs: True, widest=Match.ARCHITECTURE)
    few = len(seen)
    seen.clear()
    ids = [kernel.id for kernel in (MATMUL, CONV, SOFTMAX, EMBED, CLAMP)]
    # The device's own best is asked with `fits`, which ranks each kernel by itself; its relatives are not.
    lookup(store, HERE, ids, widest=Match.ARCHITECTURE)
    assert len(seen) <= few


def test_a_description_is_filled_in_and_never_written_over(store):
    bare = gpu("browser:x", "", "nvidia", "")
    store.begin_session(session(bare))
    store.begin_session(session(gpu("browser:x", "RTX 3060", "nvidia", "ampere")))
    store.begin_session(session(gpu("browser:x", "something else", "other", "")))
    assert store.devices() == [DeviceInfo("browser:x", "browser", "nvidia", "ampere", "RTX 3060", False)]
