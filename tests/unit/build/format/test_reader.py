"""A bundle may come from anywhere: whatever is wrong with it is said, and nothing outside its folder is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade_bundle import LENGTH, STATES, write_bundle
from hypothesis import given
from hypothesis import strategies as st
from synthetic_bundle import make_bundle

from wgtune.build.format.manifest import MANIFEST, TOKENIZER, Manifest
from wgtune.build.format.plan import PLAN, Plan
from wgtune.build.format.reader import Bundle, is_bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.build.format.tokenizer import load_tokenizer, token_ids
from wgtune.support.enums import ComputePrecision
from wgtune.support.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def edited(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def test_a_whole_bundle_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert is_bundle(folder)
    assert bundle.default_sampler is Sampler.EULER
    assert b"".join(bundle.chunks("weights/shard-000.bin")) == bundle.read("weights/shard-000.bin")
    assert bundle.nbytes == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    run = bundle.run(Sampler.EULER, 3)
    assert run.calls == 3 and run.timesteps.tolist() == [900, 500.5, 100]
    assert run.draws.tolist() == [True, True, False, True] and run.rows.shape == (4, STATES, 2 + STATES)


def test_manifest_and_plan_survive_json(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert [Plan.from_json(one.plan.to_json()) for one in bundle.programs] == [one.plan for one in bundle.programs]


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no folder"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path)
    assert not is_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text('{"name": "a web app"}')
    assert not is_bundle(tmp_path)
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        Bundle.open(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        Bundle.open(tmp_path)


def test_a_bundle_of_another_format_says_which(folder: Path) -> None:
    edited(folder, MANIFEST, lambda m: m.update(format=1))
    with pytest.raises(BundleError, match="format 1, this wgtune reads format 2") as error:
        Bundle.open(folder)
    assert "build it again" in error.value.hint


@pytest.mark.parametrize(
    "name", [PLAN, TOKENIZER, "weights/shard-000.bin", "kernels/unet.wgsl", "schedulers/euler.bin"]
)
def test_a_missing_a_short_and_a_changed_file_are_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{name} has {len(data) - 1} bytes instead of {len(data)}"):
        Bundle.open(folder)
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name} has the wrong SHA-256"):
        bundle = Bundle.open(folder)
        list(bundle.chunks(name))
    with pytest.raises(BundleError, match=f"{name} has the wrong SHA-256"):
        Bundle.open(folder).read(name)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "kernels/../../secret", "..\\secret", "C:secret"])
def test_file_names_stay_inside_the_folder(folder: Path, name: str) -> None:
    edited(folder, MANIFEST, lambda m: m["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="not a path inside the bundle"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", [TOKENIZER, "weights/shard-000.bin", "kernels/unet.wgsl"])
def test_a_file_in_use_must_be_listed(folder: Path, name: str) -> None:
    edited(folder, MANIFEST, lambda m: m["files"].pop(name))
    with pytest.raises(BundleError, match=f"{name} is used by plan.json but not listed"):
        Bundle.open(folder)


def test_a_program_uses_its_own_files_and_those_of_all(tmp_path: Path) -> None:
    make_bundle(tmp_path, half=True)
    bundle = Bundle.open(tmp_path)
    half, full = bundle.programs
    assert (half.info.plan, half.info.compute, half.info.requires.features) == (
        "plan-f16.json",
        ComputePrecision.F16,
        ("shader-f16",),
    )
    assert (full.info.plan, full.info.compute, full.info.requires.features) == (PLAN, ComputePrecision.F32, ())
    own = [set(bundle.manifest.files_of(one.info)) for one in (half, full)]
    assert own[0] - own[1] == {"plan-f16.json", "kernels/means-f16.wgsl", "kernels/unet-f16.wgsl"}
    assert own[1] - own[0] == {PLAN, "kernels/means.wgsl", "kernels/unet.wgsl"}
    assert bundle.programs_of(ComputePrecision.F16) == (half,) and bundle.programs_of(None) == (half, full)
    edited(tmp_path, MANIFEST, lambda m: m["files"]["kernels/unet-f16.wgsl"].update(plans=[PLAN]))
    with pytest.raises(BundleError, match=r"kernels/unet-f16\.wgsl is used by plan-f16\.json but not listed"):
        Bundle.open(tmp_path)


def test_a_program_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(BundleError, match="no program for f16") as error:
        Bundle.open(folder).programs_of(ComputePrecision.F16)
    assert "it has: f32" in error.value.hint


def test_steps_and_schedulers_that_are_not_there_are_listed(folder: Path) -> None:
    edited(
        folder,
        MANIFEST,
        lambda m: m["schedulers"]["tables"]["euler"]["runs"].update(
            {str(n): {"offset": 2, "calls": 3, "states": STATES} for n in (1, 2, 7)}
        ),
    )
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match="no run of 5 steps") as error:
        bundle.run(Sampler.EULER, 5)
    assert "1-3, 7" in error.value.hint
    with pytest.raises(BundleError, match="no scheduler 'pndm'") as error:
        bundle.run(Sampler.PNDM, 3)
    assert "euler" in error.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: p["stages"].pop("vae"), "stage 'vae' is missing"),
        (lambda p: p["names"].pop("pixels"), "the name 'pixels' is missing"),
        (lambda p: p["names"].update(step=[999, 0, 16]), "buffer 999"),
        (lambda p: p["names"].update(step=[0, 4, 16]), r"names\.step\[1\]: Input should be a multiple of 256, not 4"),
        (lambda p: p["stages"]["unet"][0].update(shader=77), "shader 77"),
        (lambda p: p["stages"]["unet"][0]["bindings"].append([0, 0, 1 << 40]), "1099511627776 bytes"),
        (
            lambda p: p["stages"]["unet"][0].update(grid=[1, 1]),
            r"not a plan: stages\.unet\[0\]\.grid\[2\]: Field required",
        ),
        (
            lambda p: p["stages"]["unet"][0].update(grid=[1, 1, -1]),
            r"not a plan: stages\.unet\[0\]\.grid\[2\]: .*not -1",
        ),
        (lambda p: p["buffers"][0].update(usage="texture"), "'texture'"),
        (lambda p: p["buffers"][0].update(bytes="many"), r"not a plan: buffers\[0\]\.bytes: .*not 'many'"),
        (lambda p: p["buffers"][0].update(words=[1] * 1000), "more words"),
        (lambda p: p.pop("buffers"), "not a plan: buffers: Field required"),
    ],
)
def test_an_unsound_plan_is_refused(folder: Path, change: Callable[[Any], None], what: str) -> None:
    data = json.loads((folder / PLAN).read_text())
    change(data)
    with pytest.raises(BundleError, match=what):
        Plan.from_json(json.dumps(data).encode())


@given(st.data())
def test_no_json_makes_the_readers_fail_in_another_way(data: st.DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
    keys = ["format", "wgtune", "model", "image", "files", "schedulers", "buffers", "names", "stages", "shaders"]
    value = data.draw(values | st.dictionaries(st.sampled_from(keys), values) | st.just({"format": 2}))
    for reader in (Manifest.from_json, Plan.from_json):
        with pytest.raises(BundleError):
            reader(json.dumps(value).encode())


def test_prompts_are_framed_cut_and_filled(folder: Path) -> None:
    bundle = Bundle.open(folder)
    tokenizer = load_tokenizer(bundle.read(TOKENIZER))
    prompt = bundle.manifest.prompt
    assert token_ids(tokenizer, prompt, "a RED fox") == [10, 1, 2, 3, 11, 12]
    assert token_ids(tokenizer, prompt, "") == [10, 11, 12, 12, 12, 12]
    long = token_ids(tokenizer, prompt, "a red fox and a dog and a fox")
    assert long == [10, 1, 2, 3, 4, 11] and len(long) == LENGTH
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        load_tokenizer(b"{}")


@pytest.mark.parametrize("guidance", [True, False])
def test_the_bundle_that_browser_tests_load_is_one_for_python_too(tmp_path: Path, guidance: bool) -> None:
    make_bundle(tmp_path, guidance=guidance)
    assert Bundle.open(tmp_path).manifest.image.guidance is guidance
