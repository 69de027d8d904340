"""From stages and programs to a plan: what shares memory, what must not, and which pipelines are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from wgtune.build.bundle.assembly import Assembled, ShaderFiles, assemble, find_pipeline_tensors
from wgtune.build.bundle.device_limits import check_plan, check_tensors, required_limits
from wgtune.build.bundle.weights import layout_shards, stored_tensors
from wgtune.build.format.plan import Plan
from wgtune.devices.limits import TIERS
from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader
from wgtune.support.errors import BundleError
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Operand, Stage, TensorSpec

LATENT = 4 * 2 * 2
IN_PLACE_OFFSET = 256


def program(bindings: str, *, passes: int = 1, scratch: int = 0) -> Program:
    """Binding i is ``bindings[i]``: r or w. With ``scratch``, ``passes`` 2 puts one buffer between two dispatches."""
    kinds = {"r": "read", "w": "read_write"}

    def shader(letters: str) -> Shader:
        lines = [f"@group(0) @binding({i}) var<storage, {kinds[c]}> b{i}: array<f32>;" for i, c in enumerate(letters)]
        return Shader("main", "\n".join(lines) + "\n@compute @workgroup_size(1) fn main() {}", (1, 1, 1))

    args = tuple(Buffer("arg", i) for i in range(len(bindings)))
    needs = Requirements(1, (1, 1, 1), 0, len(bindings), 64)
    if passes == 1:
        return Program((shader(bindings),), (Dispatch(0, args, (1, 1, 1)),), (), needs)
    middle = Buffer("scratch", 0)
    dispatches = (Dispatch(0, (*args[:-1], middle), (1, 1, 1)), Dispatch(1, (middle, args[-1]), (7, 1, 1), (6,)))
    last = shader("rw")
    last = replace(last, source=last.source + "\n@group(0) @binding(2) var<uniform> u: vec4u;")
    return Program((shader("r" * (len(bindings) - 1) + "w"), last), dispatches, (scratch,), needs)


def kernel(name: str, parameters: int) -> Kernel:
    params = tuple(TensorSpec(f"p{i}", (16,), "float32") for i in range(parameters))
    return Kernel(name, name, name, None, params, (parameters - 1,), 1.0, 64)  # type: ignore[arg-type]


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def temp(index: int, nbytes: int = 64, offset: int = 0) -> Operand:
    return Operand("temp", index, offset, nbytes)


def capture(unet_calls: list[Call] | None = None, temps: list[int] | None = None, guidance: bool = True) -> Capture:
    """CLIP and VAE of one call each, and a UNet of a chain: latents → temps 0 … 4 → noise."""
    n = 2 if guidance else 1
    latents, noise = 4 * n * LATENT, 4 * n * LATENT
    clip = Stage(
        "clip",
        [spec("token_ids", 1, 6, dtype="int32")],
        [spec("text_embedding", 1, 6, 8)],
        [spec("table", 8)],
        [],
        [],
        [Call("embed", (Operand("input", 0, 0, 24), Operand("param", 0, 0, 32), Operand("output", 0, 0, 192)))],
    )
    chain = [Call("two", (Operand("input", 0, 0, latents), temp(0)))]
    chain += [Call("two", (temp(i), temp(i + 1))) for i in range(4)]
    chain += [Call("two", (temp(4), Operand("output", 0, 0, noise)))]
    unet = Stage(
        "unet",
        [spec("latents", n, 4, 2, 2), spec("timestep"), spec("context", n, 6, 8)],
        [spec("noise", n, 4, 2, 2)],
        [],
        [np.zeros(3, np.float32)],
        temps or [64] * 5,
        unet_calls or chain,
    )
    vae = Stage(
        "vae", [spec("latents", 1, 4, 2, 2)], [spec("image", 1, 3, 16, 16)], [], [], [],
        [Call("two", (Operand("input", 0, 0, 64), Operand("output", 0, 0, 3072)))],
    )  # fmt: skip
    kernels = {"embed": kernel("embed", 3), "two": kernel("two", 2), "inplace": kernel("inplace", 2)}
    options = CaptureOptions(guidance=guidance)
    return Capture("key", "model", options, {"clip": clip, "unet": unet, "vae": vae}, kernels)


PROGRAMS = {"embed": program("rrw"), "two": program("rw"), "inplace": program("rw")}


def assembled(
    found: Capture,
    programs: dict[str, Program] | None = None,
    states: int = 5,
    files: ShaderFiles | None = None,
) -> Assembled:
    tensors, layout = find_pipeline_tensors(found), layout_shards(stored_tensors(found.stages))
    return assemble(found, tensors, programs or PROGRAMS, layout, states, files or ShaderFiles())


def test_a_chain_of_intermediates_takes_two_buffers() -> None:
    result = assembled(capture())
    assert len(result.memory.storages) == 2
    chain = result.plan.stages["unet"]
    assert len(chain) == 6
    for before, after in pairwise(chain):
        assert before.bindings[1] == after.bindings[0], "what one call writes the next one reads"
        assert after.bindings[0].buffer != after.bindings[1].buffer
    assert Plan.from_json(result.plan.to_json()) == result.plan


def test_scratch_lives_between_its_dispatches_only() -> None:
    programs = {**PROGRAMS, "two": program("rw", passes=2, scratch=64)}
    result = assembled(capture(), programs)
    assert len(result.memory.storages) == 2, "the input is done with when the second dispatch writes the output"
    line = result.plan.stages["unet"]
    assert len(line) == 12
    for first, second in zip(line[::2], line[1::2], strict=True):
        assert first.bindings[1] == second.bindings[0], "what the first leaves in the scratch"
        for dispatch in (first, second):
            assert dispatch.bindings[0].buffer != dispatch.bindings[1].buffer
        uniform = second.bindings[2]
        assert result.plan.buffers[uniform.buffer].words == (6,) and second.grid == (7, 1, 1)


def test_named_places_have_the_sizes_of_the_format() -> None:
    for guidance in (True, False):
        plan = assembled(capture(guidance=guidance)).plan
        sizes = {name: place.nbytes for name, place in plan.names.items()}
        n = 2 if guidance else 1
        assert sizes["token_ids"] == 4 * 6 and sizes["text_embedding"] == 4 * 6 * 8
        assert sizes["context"] == n * 4 * 6 * 8 and sizes["state"] == 7 * 4 * LATENT
        assert sizes["coefficients"] == 4 * 5 * 7 and sizes["step"] == 16 and sizes["timestep"] == 4
        assert sizes["pixels"] == 4 * 16 * 16 and sizes["image"] == 3 * sizes["pixels"]
        assert {s.file for s in plan.shaders} >= {"kernels/schedule-0.wgsl", "kernels/image-0.wgsl"}
        assert ("kernels/guide-0.wgsl" if guidance else "kernels/keep-0.wgsl") in {s.file for s in plan.shaders}


def test_ranges_of_one_tensor_may_be_read_and_written_by_different_calls() -> None:
    calls = [
        Call("two", (Operand("input", 0, 0, 128), temp(0, 64, 0))),
        Call("two", (Operand("input", 0, 0, 128), temp(0, 64, IN_PLACE_OFFSET))),
        Call("two", (temp(0, 320), Operand("output", 0, 0, 128))),
    ]
    plan = assembled(capture(calls, [320])).plan
    first, second, third = plan.stages["unet"]
    assert second.bindings[1].offset == IN_PLACE_OFFSET
    assert {first.bindings[1].buffer, second.bindings[1].buffer} == {third.bindings[0].buffer}


def test_one_buffer_bound_both_ways_is_refused() -> None:
    calls = [
        Call("two", (Operand("input", 0, 0, 128), temp(0, 64))),
        Call("inplace", (temp(0, 64), temp(0, 64, IN_PLACE_OFFSET))),
    ]
    with pytest.raises(BundleError, match=r"call 1 of unet \(inplace\) binds one buffer twice"):
        assembled(capture(calls, [512]))


def test_reading_what_nothing_wrote_is_refused() -> None:
    calls = [Call("two", (temp(0), Operand("output", 0, 0, 128)))]
    with pytest.raises(BundleError, match="reads unet temp 0 before anything wrote it"):
        assembled(capture(calls, [64]))


def test_only_text_to_image_pipelines_are_built() -> None:
    found = capture()
    for change, what in [
        ({"clip2": found.stages["clip"]}, "clip2"),
        (
            {"unet": replace(found.stages["unet"], inputs=[*found.stages["unet"].inputs, spec("time_ids", 1, 6)])},
            "time_ids",
        ),
        (
            {
                "unet": replace(
                    found.stages["unet"], inputs=[spec("latents", 2, 9, 2, 2), *found.stages["unet"].inputs[1:]]
                )
            },
            "9",
        ),
        ({"vae": replace(found.stages["vae"], outputs=[spec("pixels", 1, 3, 16, 16)])}, "no tensor 'image'"),
    ]:
        with pytest.raises(BundleError, match=what) as error:
            find_pipeline_tensors(replace(found, stages={**found.stages, **change}))
        assert error.value.hint


def test_requirements_are_the_least_that_the_plan_needs() -> None:
    wide = replace(PROGRAMS["two"], needs=Requirements(128, (32, 4, 1), 2000, 2, 64))
    plan = assembled(capture()).plan
    limits = required_limits(plan, [PROGRAMS["embed"], wide])
    assert limits["maxComputeInvocationsPerWorkgroup"] == 256, "the glue stages"
    assert (limits["maxComputeWorkgroupSizeX"], limits["maxComputeWorkgroupSizeY"]) == (256, 4)
    assert limits["maxComputeWorkgroupStorageSize"] == 2000
    assert limits["maxStorageBuffersPerShaderStage"] == 4, "the schedule stage"
    assert limits["maxStorageBufferBindingSize"] == 3072
    assert limits["maxBufferSize"] == max(b.nbytes for b in plan.buffers)
    check_plan(limits, TIERS["default"])
    with pytest.raises(BundleError, match="maxBufferSize is 300000000, tier default grants 268435456") as error:
        check_plan({**limits, "maxBufferSize": 300_000_000}, TIERS["default"])
    assert error.value.hint == "--tier desktop would do"


def test_a_tensor_too_large_for_the_tier_is_named() -> None:
    found = capture([Call("two", (Operand("input", 0, 0, 128), temp(0, 200 << 20)))], [200 << 20])
    with pytest.raises(
        BundleError, match=r"temp 0 of unet \(kernel two\) takes 200\.0 MiB.*default is 128 MiB"
    ) as error:
        check_tensors(found, TIERS["default"])
    assert error.value.hint == "--tier desktop would do"
    check_tensors(found, TIERS["desktop"])
