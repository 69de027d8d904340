"""Real compilers on made shaders: Chromium's Tint, and Mesa's RADV for chips that are not here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import find_chromium
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.devices.offline.chips import CHIPS, find_chips, start_chip
from wgtune.devices.offline.compiler import OfflineCompiler
from wgtune.devices.program import Shader
from wgtune.support.errors import DeviceError
from wgtune.tuner.compiled import facts as facts_module

FOUND, PROBLEMS = find_chips()
pytestmark = pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS) or "all chips are here")

PRODUCT = """
@group(0) @binding(0) var<storage, read> a : array<vec4f>;
@group(0) @binding(1) var<storage, read> b : array<vec4f>;
@group(0) @binding(2) var<storage, read_write> c : array<vec4f>;
struct Shape { depth : u32 }
@group(0) @binding(3) var<uniform> shape : Shape;
var<workgroup> tile : array<vec4f, 256>;
@compute @workgroup_size(64) fn main_kernel(@builtin(global_invocation_id) at : vec3u) {
    var sums : array<vec4f, 4>;
    tile[at.x % 256u] = b[at.x];
    workgroupBarrier();
    for (var k = 0u; k < shape.depth; k++) {
        let x = a[k * 64u + at.x];
        let y = tile[k % 256u];
        sums[0] = fma(vec4f(x.x), y, sums[0]);
        sums[1] = fma(vec4f(x.y), y, sums[1]);
        sums[2] = fma(vec4f(x.z), y, sums[2]);
        sums[3] = fma(vec4f(x.w), y, sums[3]);
    }
    for (var i = 0u; i < 4u; i++) { c[at.x * 4u + i] = sums[i]; }
}
"""

COPY = """
@group(0) @binding(0) var<storage, read> a : array<f32>;
@group(0) @binding(1) var<storage, read_write> b : array<f32>;
@compute @workgroup_size(64) fn main_kernel(@builtin(global_invocation_id) at : vec3u) { b[at.x] = a[at.x]; }
"""

# 300 sums that all live through a loop, where a thread has 256 registers at most.
MANY = "\n".join(
    [
        "@group(0) @binding(0) var<storage, read> a : array<f32>;",
        "@group(0) @binding(1) var<storage, read_write> b : array<f32>;",
        "@compute @workgroup_size(64) fn main_kernel(@builtin(local_invocation_index) at : u32) {",
        *(f"    var x{i} = f32(at + {i}u);" for i in range(300)),
        "    for (var k = 0u; k < 1000u; k++) {",
        "        let y = a[k * 64u + at];",
        *(f"        x{i} = fma(x{i}, y, x{(i + 7) % 300});" for i in range(300)),
        "    }",
        *(f"    b[at + {64 * i}u] = x{i};" for i in range(300)),
        "}",
    ]
)


def shader(source: str) -> Shader:
    return Shader("main_kernel", source, (64, 1, 1))


@pytest.fixture(scope="module", autouse=True)
def chromium() -> str:
    return find_chromium()


@pytest.fixture(scope="module")
def offline(chromium: str) -> Iterator[OfflineCompiler]:
    with OfflineCompiler(CHIPS) as opened:
        yield opened


def test_every_chip_compiles_without_hardware(offline: OfflineCompiler) -> None:
    assert [one.chip for one in FOUND] == list(CHIPS)
    assert "Chrom" in offline.compiler and "Mesa" in offline.compiler
    product, copy = offline.compile([(shader(PRODUCT), CHIPS), (shader(COPY), CHIPS)])
    for one in product:
        assert one.facts is not None, one.error
        assert one.facts.workgroup_bytes >= 4096 and one.facts.spills == 0 and one.facts.waves > 1
        assert one.facts.vgprs >= 16 and one.facts.sgprs and one.facts.code_bytes >= 4 * one.facts.instructions
        assert one.facts.latency_cycles > 0 and one.facts.inverse_throughput_cycles > 0
        # The loop may be unrolled, never split: 16 multiply-adds a step.
        assert one.facts.hot_multiply_adds and one.facts.hot_multiply_adds % 16 == 0
        assert 0.2 < one.facts.share < 0.8
    for one, other in zip(copy, product, strict=True):
        assert one.facts is not None and one.facts.hot_multiply_adds == 0 and one.facts.workgroup_bytes == 0
        assert one.facts.instructions < other.facts.instructions


def test_the_same_shader_has_the_same_facts(offline: OfflineCompiler) -> None:
    first, second = offline.compile([(shader(PRODUCT), CHIPS)] * 2)
    assert first == second


def test_too_many_values_spill(offline: OfflineCompiler) -> None:
    (outcomes,) = offline.compile([(shader(MANY), CHIPS)])
    assert any(one.facts is not None and one.facts.spills for one in outcomes), outcomes


def test_a_faulty_shader_is_an_error_and_the_next_one_compiles(offline: OfflineCompiler) -> None:
    faulty, fine = offline.compile([(shader("fn main_kernel() { let x = y; }"), CHIPS), (shader(COPY), CHIPS)])
    assert all(one.facts is None and "unresolved value 'y'" in one.error for one in faulty)
    assert all(one.facts is not None for one in fine)


def test_a_killed_driver_is_started_again(offline: OfflineCompiler) -> None:
    chip = CHIPS[2]
    before = offline._children[chip].pid
    offline._children[chip].kill()
    (outcomes,) = offline.compile([(shader(COPY), [chip])])
    assert outcomes[0].facts is not None and offline._children[chip].pid != before


def test_more_shaders_than_a_device_prints(offline: OfflineCompiler) -> None:
    """Chromium prints 500 messages of a device; each shader is another text, lest it be cached."""
    chip = CHIPS[2]
    shaders = [shader(COPY.replace("b[at.x] =", f"b[at.x + {n}u] =")) for n in range(260)]
    outcomes = list(offline.compile([(one, [chip]) for one in shaders]))
    assert len(outcomes) == 260 and all(one.facts is not None for (one,) in outcomes)


def test_a_family_that_the_driver_does_not_know_is_a_sentence() -> None:
    chip = replace(CHIPS[0], name="navi99", families=("navi98", "navi99"))
    with pytest.raises(DeviceError, match=r"does not compile for navi99 here: .*navi99"):
        start_chip(chip)
    # Mesa's names change: the next one is tried.
    child, found = start_chip(replace(CHIPS[2], families=("navi98", *CHIPS[2].families)))
    child.kill()
    assert found.family == "navi21"


def report(*words: str) -> dict:
    result = CliRunner().invoke(app, ["report", "compiled", *words, "--json"])
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def test_a_bundle_is_compiled_once(
    demo_folder: Path, demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--bundle", str(demo_bundle), "--model", str(demo_folder), "--db", str(tmp_path / "x.db"), "--no-releases"]
    first = report(*words, "--chip", "navi21,vega10")
    monkeypatch.setattr(facts_module, "OfflineCompiler", None)  # compiling would raise TypeError
    assert report(*words, "--chip", "navi21,vega10") == first
    assert [chip["name"] for chip in first["chips"]] == ["navi21", "vega10"]
    bounds = {(bound["chip"], bound["stage"]): bound for bound in first["bounds"]}
    assert {stage for _, stage in bounds} == {"image", "clip", "unet", "vae"}
    assert all(0 < bound["share"] < 1 and bound["unknown"] < 0.1 for bound in bounds.values())


def test_the_shipped_records_programs_are_compiled(tmp_path: Path) -> None:
    found = report("--device", "vulkan:llvmpipe", "--stage", "clip", "--chip", "navi21", "--db", str(tmp_path / "x.db"))
    assert found["subject"].startswith("Best records of vulkan:llvmpipe")
    compiled = [row for row in found["kernels"] if row["chips"]["navi21"]["shaders"]]
    assert compiled and all("clip" in row["stages"] and row["program_digest"] for row in compiled)
