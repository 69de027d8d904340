"""What a picture's metadata tells of the choice of a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade_bundle import write_bundle

from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.painter import GenerateOptions, png_metadata, resolve_options
from wgtune.support.enums import ComputePrecision
from wgtune.support.errors import BundleError, UsageError


def test_a_chosen_precision_is_part_of_what_determines_a_picture(tmp_path: Path) -> None:
    """Left to the device, it is not: several devices may draw one batch."""
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    # A child process is told plain texts.
    chosen = resolve_options(bundle, GenerateOptions(steps=3, compute="f32"))  # type: ignore[arg-type]
    assert chosen.compute is ComputePrecision.F32
    free = resolve_options(bundle, GenerateOptions(steps=3))
    texts = png_metadata(bundle, free, "a fox", 1)
    assert "compute" not in texts and png_metadata(bundle, chosen, "a fox", 1) == {**texts, "compute": "f32"}


def test_a_precision_that_the_bundle_lacks_is_told_before_any_device_is_opened(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    with pytest.raises(BundleError, match="no program for f16"):
        resolve_options(bundle, GenerateOptions(steps=3, compute=ComputePrecision.F16))


def test_a_precision_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    with pytest.raises(UsageError, match="no precision 'half'") as told:
        resolve_options(bundle, GenerateOptions(steps=3, compute="half"))  # type: ignore[arg-type]
    assert "f32, f16" in told.value.hint
