"""Targets carry a tier's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgtune.devices.limits import TIERS, Tier
from wgtune.tuner.codegen.targets import emit_target, search_target


@pytest.mark.parametrize("tier", TIERS.values(), ids=TIERS)
def test_both_targets_have_the_tiers_threads_and_memory(tier: Tier) -> None:
    for target in (search_target(tier), emit_target(tier)):
        assert int(target.attrs["max_num_threads"]) == tier.limits["maxComputeInvocationsPerWorkgroup"]
        assert int(target.attrs["max_shared_memory_per_block"]) == tier.limits["maxComputeWorkgroupStorageSize"]
    assert search_target(tier).kind.name == "vulkan"
    assert emit_target(tier).kind.name == "webgpu"


def test_a_short_x_bounds_the_threads() -> None:
    tier = TIERS["default"]
    narrow = replace(tier, limits={**tier.limits, "maxComputeWorkgroupSizeX": 128})
    assert int(search_target(narrow).attrs["max_threads_per_block"]) == 128
