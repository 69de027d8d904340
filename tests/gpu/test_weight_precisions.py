"""Bundles with half floats and quantised weights: smaller, for every GPU, and nearly the same pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.generate import generate
from wgtune.build.runtime.painter import GenerateOptions
from wgtune.devices.device import Device
from wgtune.support.enums import WeightPrecision

F16, Q8, Q4 = WeightPrecision.F16, WeightPrecision.Q8, WeightPrecision.Q4


def drawn(bundle: Path, device: Device, into: Path) -> np.ndarray:
    generate(bundle, "a lighthouse at dusk", into, GenerateOptions(steps=20), seed=7, device=device.key)
    with Image.open(into) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


def weight_bytes(bundle: Bundle) -> int:
    return sum(info.nbytes for name, info in bundle.manifest.files.items() if name.startswith("weights/"))


@pytest.mark.parametrize(("weights", "decibels", "share"), [(F16, 45, 0.55), (Q8, 35, 0.5), (Q4, 25, 0.49)])
def test_pictures_are_near_those_of_float32_weights(
    demo_bundle_of: Callable[[WeightPrecision], Path],
    device: Device,
    tmp_path: Path,
    weights: WeightPrecision,
    decibels: float,
    share: float,
) -> None:
    full, small = demo_bundle_of(WeightPrecision.F32), demo_bundle_of(weights)
    opened = Bundle.open(small)
    assert opened.manifest.model.weights is weights and opened.programs[0].info.requires.features == ()
    # Most of this model is its table of words, which no format makes smaller than half floats.
    assert weight_bytes(opened) < share * weight_bytes(Bundle.open(full))
    expected, got = drawn(full, device, tmp_path / "full.png"), drawn(small, device, tmp_path / "small.png")
    error = np.square(got - expected).mean()
    assert 10 * math.log10(255**2 / error) >= decibels
    assert expected.std() > 5, "a flat picture would prove nothing"
