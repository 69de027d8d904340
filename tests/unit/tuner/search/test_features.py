"""Features of devices: what is not known is absent, and no number comes from what a foreign database holds instead."""

from __future__ import annotations

import math

import pytest

from wgtune.devices.quirks import NO_QUIRKS, Quirks
from wgtune.tuner.schedule_rules.rule import Quantities
from wgtune.tuner.search.features import device_features, quantity_features

LIMITS = {"maxComputeInvocationsPerWorkgroup": 255, "maxComputeWorkgroupStorageSize": 16383}
PEAKS = {"flops_per_s": 2.0**40, "bytes_per_s": 2.0**36, "launch_s": 2.0**-16}


def test_of_a_device() -> None:
    assert device_features(LIMITS, False, NO_QUIRKS, PEAKS) == {
        "device.software": 0.0,
        "device.at_first_dispatch": 0.0,
        "device.pinned": 0.0,
        "device.avoids_shared": 0.0,
        "device.threads": 8.0,
        "device.shared_bytes": 14.0,
        "device.flops_per_s": 40.0,
        "device.bytes_per_s": 36.0,
        "device.launch_s": -16.0,
        "device.balance": 4.0,
    }
    quirky = device_features(LIMITS, True, Quirks(max_thread_iterations=65535, pinned_threads=True, wave=7), PEAKS)
    assert quirky["device.iterations"] == 16.0 and quirky["device.pinned"] == 1.0 and quirky["device.wave"] == 3.0


@pytest.mark.parametrize("value", [None, "many", 0, -1, math.nan, math.inf, []])
def test_what_is_no_measurement_is_absent(value: object) -> None:
    found = device_features(
        dict.fromkeys(LIMITS, value),
        False,
        NO_QUIRKS,
        dict.fromkeys(PEAKS, value),
    )
    assert not {"device.threads", "device.flops_per_s", "device.launch_s", "device.balance"} & set(found)
    assert all(map(math.isfinite, found.values()))


def test_quantities_that_are_not_known_are_absent() -> None:
    found = quantity_features(Quantities(threads=3, cost=0.25, loads=0.0))
    assert found == {"point.threads": 2.0, "point.cost": -2.0, "point.loads": -40.0}
