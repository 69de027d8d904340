"""What the wgpu layer reads off a shader's text; no adapter needed."""

import pytest

from wgtune.devices.wgsl_bindings import binding_types


def test_bindings_are_read_in_order_whatever_the_spelling() -> None:
    source = """
    // @group(0) @binding(7) var<storage, read> commented_out: array<f32>;
    /* @group(0) @binding(8) var<uniform> too: u32; */
    @binding(3) @group(0) var<uniform> words: Words;
    @group(0) @binding(0) var<storage, read> a: array<f32>;
    @group( 0 )  @binding( 2u ) var< storage , read_write > c : array<f32>;
    @group(0) @binding(1)
    var<storage> b: array<f32>;
    var<workgroup> tile: array<f32, 64>;
    var<private> x: f32;
    """
    assert binding_types(source) == ["read-only-storage", "read-only-storage", "storage", "uniform"]


def test_no_bindings() -> None:
    assert binding_types("@compute @workgroup_size(1) fn main() {}") == []


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        binding_types("@group(0) @binding(0) var<uniform> a: u32; @group(0) @binding(2) var<uniform> b: u32;")
