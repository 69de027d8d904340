"""A bundle small enough to check by hand: every network is one shader that copies or fills."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from wgtune.build.bundle.glue import glue_grid, glue_source
from wgtune.build.format.manifest import (
    MANIFEST,
    TOKENIZER,
    DispatchesInfo,
    FileInfo,
    ImageInfo,
    Manifest,
    ModelInfo,
    ProgramInfo,
    PromptInfo,
    Requirements,
    RunInfo,
    SchedulersInfo,
    TableInfo,
    TunedInfo,
)
from wgtune.build.format.plan import PLAN, BufferRange, Plan, PlanBuffer, PlanDispatch, PlanShader
from wgtune.support.enums import ComputePrecision, WeightPrecision

BATCH, CHANNELS, LATENT_HEIGHT, LATENT_WIDTH, LENGTH, WIDTH = 2, 4, 3, 5, 6, 8
HEIGHT_PIXELS, WIDTH_PIXELS = 24, 40
STATES = 2
COPY = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < arrayLength(&y)) { y[id.x] = x[id.x % arrayLength(&x)]; }
}
"""
EMBED = """
@group(0) @binding(0) var<storage, read> ids: array<i32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let width = arrayLength(&y) / arrayLength(&ids);
    if (id.x < arrayLength(&y)) { y[id.x] = f32(ids[id.x / width]) * scale[0] + f32(id.x % width); }
}
"""
UNET = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> timestep: array<f32>;
@group(0) @binding(2) var<storage, read> context: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let entries = arrayLength(&context) / __CONTEXT__u;
    let each = arrayLength(&y) / entries;
    if (id.x < arrayLength(&y)) {
        y[id.x] = 0.5 * x[id.x] + 0.001 * timestep[0] + context[(id.x / each) * __CONTEXT__u + 1u];
    }
}
""".replace("__CONTEXT__", str(LENGTH * WIDTH))
SCALE = 0.01


def unet(latents: np.ndarray, timestep: float, context: np.ndarray) -> np.ndarray:
    """What the UNET shader computes: latents [n, …], context [n, length, width]."""
    entries = context.reshape(len(context), -1)[:, 1]
    return 0.5 * latents + np.float32(0.001) * np.float32(timestep) + entries.reshape(-1, *[1] * (latents.ndim - 1))


def embedded(ids: list[int]) -> np.ndarray:
    """What the EMBED shader computes: float32 [length, width]."""
    return np.float32(ids)[:, None] * np.float32(SCALE) + np.arange(WIDTH, dtype=np.float32)


def write_bundle(folder: Path, *, guidance: bool = True, limits: dict[str, int] | None = None) -> Path:
    """Write the bundle into ``folder``."""
    latent = 4 * BATCH * CHANNELS * LATENT_HEIGHT * LATENT_WIDTH
    copies = 2 if guidance else 1
    image = 4 * BATCH * 3 * HEIGHT_PIXELS * WIDTH_PIXELS
    sizes = {
        "token_ids": 4 * LENGTH,
        "text_embedding": 4 * LENGTH * WIDTH,
        "context": 4 * copies * BATCH * LENGTH * WIDTH,
        "state": (2 + STATES) * latent,
        "coefficients": 4 * STATES * (2 + STATES),
        "timestep": 4,
        "pixels": image // 3,
        "latents": latent,
        "image": image,
        "unet_latents": copies * latent,
        "noise": copies * latent,
    }
    plan = Plan(buffers=[], names={}, shaders=[], stages={})
    places: dict[str, BufferRange] = {}
    for name, nbytes in sizes.items():
        places[name] = BufferRange(len(plan.buffers), 0, nbytes)
        plan.buffers.append(PlanBuffer(-(-nbytes // 256) * 256, "storage"))
    places["step"] = BufferRange(len(plan.buffers), 0, 16)
    plan.buffers.append(PlanBuffer(16, usage="uniform"))
    plane = BufferRange(len(plan.buffers), 0, 16)
    plan.buffers.append(PlanBuffer(16, usage="uniform", words=(HEIGHT_PIXELS * WIDTH_PIXELS,)))
    scale = BufferRange(len(plan.buffers), 256, 4)
    plan.buffers.append(PlanBuffer(512, "storage", shard="weights/shard-000.bin"))
    plan.names = {name: place for name, place in places.items() if name not in ("unet_latents", "noise")}

    files: dict[str, bytes] = {"weights/shard-000.bin": b"\0" * 256 + np.float32([SCALE]).tobytes()}

    def shader(name: str, source: str) -> int:
        files[f"kernels/{name}.wgsl"] = source.encode()
        plan.shaders.append(PlanShader(f"kernels/{name}.wgsl", "main"))
        return len(plan.shaders) - 1

    def stage(name: str, source: str, bindings: list[BufferRange], grid: tuple[int, int, int]) -> None:
        plan.stages[name] = [PlanDispatch(shader(name, source), tuple(bindings), grid)]

    p = places
    stage("clip", EMBED, [p["token_ids"], scale, p["text_embedding"]], (LENGTH * WIDTH, 1, 1))
    stage(
        "schedule",
        glue_source("schedule"),
        [p["state"], p["coefficients"], p["unet_latents"], p["latents"], p["step"]],
        glue_grid(latent // 4),
    )
    stage(
        "unet", UNET, [p["unet_latents"], p["timestep"], p["context"], p["noise"]], (copies * latent // 256 + 1, 1, 1)
    )
    guide = "guide" if guidance else "keep"
    stage("guide", glue_source(guide), [p["noise"], p["state"], p["step"]], glue_grid(latent // 4))
    stage("vae", COPY, [p["latents"], p["image"]], (image // 256 + 1, 1, 1))
    stage("image", glue_source("image"), [p["image"], p["pixels"], plane], glue_grid(image // 12))

    # Three calls, and noise before the second row and the last.
    rows = np.linspace(-0.7, 0.9, 4 * STATES * (2 + STATES)).reshape(4, STATES, 2 + STATES)
    rows[0, :, 1:] = 0
    heads = [[900, 1], [500.5, 1], [100, 0], [0, 1]]
    table = np.concatenate([heads, rows.reshape(4, -1)], axis=1).reshape(-1)
    files["schedulers/euler.bin"] = np.concatenate([[1, 2], table]).astype("<f4").tobytes()
    files[PLAN] = plan.to_json()
    files[TOKENIZER] = json.dumps(_tokenizer()).encode()
    needs = limits or {"maxComputeInvocationsPerWorkgroup": 256, "maxStorageBuffersPerShaderStage": 4}
    program = ProgramInfo(
        plan=PLAN,
        compute=ComputePrecision.F32,
        capture="none",
        requires=Requirements(needs, ()),
        tuned=TunedInfo("", False, "2026-01-01T00:00:00Z", 3, 0, 0, 3, None, ()),
        dispatches=DispatchesInfo(0.01, 0),
    )
    manifest = Manifest(
        format=2,
        wgtune="0",
        model=ModelInfo("handmade", WeightPrecision.F32),
        image=ImageInfo(WIDTH_PIXELS, HEIGHT_PIXELS, BATCH, guidance, (CHANNELS, LATENT_HEIGHT, LATENT_WIDTH)),
        tier="default",
        programs=(program,),
        prompt=PromptInfo(LENGTH, 10, 11, 12),
        schedulers=SchedulersInfo(
            "euler",
            {"_class_name": "EulerDiscreteScheduler"},
            {
                "euler": TableInfo(
                    "schedulers/euler.bin", "Euler", "EulerDiscreteScheduler", "stream", {3: RunInfo(2, 3, STATES)}
                )
            },
        ),
        files={name: FileInfo(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    for name, data in {**files, MANIFEST: manifest.to_json()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _tokenizer() -> dict[str, Any]:
    """One token for each of a few words."""
    words = {word: i for i, word in enumerate(["?", "a", "red", "fox", "and", "dog"])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "?"},
    }
