"""Which records a tier takes: by what they say they need, and none that says something else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgtune.devices.limits import TIERS

NEEDS = {
    "threads": 64,
    "workgroup_size": [64, 1, 1],
    "workgroup_bytes": 0,
    "storage_buffers": 2,
    "binding_bytes": 10,
    "features": [],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("part", "value", "fits"),
    [
        ("threads", 256, True),
        ("threads", 257, False),
        ("threads", float("nan"), False),
        ("threads", True, False),
        ("workgroup_size", [1, 1, 65], False),
        ("workgroup_size", [], False),
        ("workgroup_size", [1, 1, 1, 1], False),
        ("workgroup_bytes", -1, False),
        ("features", ["shader-f16"], True),
        ("features", ["subgroups"], False),
        ("features", [{}], False),
    ],
)
def test_what_fits_the_default_tier(part: str, value: Any, fits: bool) -> None:
    assert TIERS["default"].fits({**NEEDS, part: value}) is fits


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(NEEDS)), JSON)
def test_no_value_is_too_strange(part: str, value: Any) -> None:
    assert TIERS["default"].fits({**NEEDS, part: value}) in (True, False)
