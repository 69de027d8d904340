"""Decodes stored weights by the words of docs/bundle.md, "Weights", with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wgtune.support.enums import WeightPrecision
from wgtune.tuner.ir import WeightFormat

GROUP = 32


def decode(weight: WeightFormat, stored: Sequence[np.ndarray]) -> np.ndarray:
    """The float32 values of a weight."""
    if weight.precision in (WeightPrecision.F32, WeightPrecision.F16):
        return stored[0].astype(np.float32)
    bits = {WeightPrecision.Q8: 8, WeightPrecision.Q4: 4}[weight.precision]
    words, scales = stored
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    integers = (words[:, None] >> shifts & np.uint32((1 << bits) - 1)).reshape(-1)
    _, _, inner = weight.extents
    centred = integers.reshape(-1, GROUP, inner).astype(np.float32) - (1 << (bits - 1))
    return (centred * (scales.astype(np.float32).reshape(-1, 1, inner) / np.float32(1024))).reshape(weight.shape)
