"""Times of a bundle's stages on the adapter: as a whole, and dispatch by dispatch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from handmade_bundle import write_bundle

from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.stage_times import PARTS, measure_stages
from wgtune.devices.device import Device
from wgtune.support.errors import DeviceError


@pytest.mark.parametrize("guided", [True, False])
def test_each_stage_is_timed_as_a_whole_and_by_its_dispatches(device: Device, tmp_path: Path, guided: bool) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", guidance=guided))
    told: list[tuple[str, float]] = []
    times = measure_stages(bundle, device, rounds=2, progress=lambda what, done: told.append((what, done)))
    assert [one.stage for one in times] == list(PARTS)
    for one in times:
        assert one.dispatches == sum(len(bundle.programs[0].plan.stages[stage]) for stage in PARTS[one.stage])
        assert one.run_s > 0 and one.alone_s > 0 and one.launch_s >= 0
        assert one.ratio == one.alone_s / one.run_s
        assert one.gpu_s is None or one.gpu_s > 0
    timing = [done for what, done in told if what == "timing its stages"]
    assert timing == sorted(timing) and timing[-1] == 1 and len(timing) == 2 * len(PARTS)


def test_without_timestamps_the_gpus_own_time_is_left_out(device: Device, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", guidance=False))
    bare = replace(device, features=())
    assert all(one.gpu_s is None for one in measure_stages(bundle, bare, rounds=1))


def test_a_device_that_lacks_what_the_bundle_needs_says_so(device: Device, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", guidance=False))
    (program,) = bundle.programs
    needs = replace(program.info.requires, features=("shader-f16", "no-such-feature"))
    demanding = replace(bundle, programs=(replace(program, info=replace(program.info, requires=needs)),))
    with pytest.raises(DeviceError):
        measure_stages(demanding, device)
