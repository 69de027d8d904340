"""A bundle made by hand: a few kernels stand in for the networks, and NumPy says what they must draw.

It has everything that the format has (several shards, two schedulers, guidance, a tokenizer, an intermediate buffer),
so that the page is tested without a model, a tuner or a builder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from wgtune.build.format.file_digest import file_info
from wgtune.build.format.sampler_tables import Sampler, SamplerRun, SamplerTable, pack_table

CHANNELS, SIDE, SCALE, LENGTH = 4, 8, 8, 12
WIDTH = SIDE * SCALE
BOS, EOS = 256, 257

CLIP = """
@group(0) @binding(0) var<storage, read> ids: array<i32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> embedding: array<f32>;
@compute @workgroup_size(64) fn clip(@builtin(global_invocation_id) at: vec3u) {
    if (at.x >= arrayLength(&embedding)) { return; }
    let token = at.x / 4u;
    embedding[at.x] = table[u32(ids[token]) * 4u + at.x % 4u] * (1.0 + 0.25 * f32(token));
}
"""

SCHEDULE = """
struct Step { states: u32, guidance: f32 }
@group(0) @binding(0) var<storage, read_write> state: array<f32>;
@group(0) @binding(1) var<storage, read> coefficients: array<f32>;
@group(0) @binding(2) var<storage, read_write> latents: array<f32>;
@group(0) @binding(3) var<storage, read_write> decoded: array<f32>;
@group(0) @binding(4) var<uniform> step: Step;
@compute @workgroup_size(64) fn schedule(@builtin(global_invocation_id) at: vec3u) {
    let count = arrayLength(&decoded);
    if (at.x >= count) { return; }
    let slots = step.states + 2u;
    var before: array<f32, 10>;
    for (var k = 0u; k < slots; k++) { before[k] = state[k * count + at.x]; }
    for (var row = 0u; row < step.states; row++) {
        var sum = 0.0;
        for (var k = 0u; k < slots; k++) {
            let factor = coefficients[row * slots + k];
            if (factor != 0.0) { sum += factor * before[k]; }
        }
        state[(row + 2u) * count + at.x] = sum;
    }
    let latent = state[2u * count + at.x];
    decoded[at.x] = latent;
    for (var i = at.x; i < arrayLength(&latents); i += count) { latents[i] = latent; }
}
"""

# Means of the context first, into an intermediate; the uniform is declared and never used, as emitted kernels do too.
MEANS = """
@group(0) @binding(0) var<storage, read> context: array<f32>;
@group(0) @binding(1) var<storage, read_write> means: array<f32>;
@group(0) @binding(2) var<uniform> unused: vec4u;
@compute @workgroup_size(1) fn means_of(@builtin(global_invocation_id) at: vec3u) {
    let tokens = arrayLength(&context) / arrayLength(&means);
    var sum = 0.0;
    for (var t = 0u; t < tokens; t++) { sum += context[((at.x / 4u) * tokens + t) * 4u + at.x % 4u]; }
    means[at.x] = sum / f32(tokens);
}
"""

UNET = """
struct Shape { area: u32 }
@group(0) @binding(0) var<storage, read> latents: array<f32>;
@group(0) @binding(1) var<storage, read> means: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> timestep: array<f32>;
@group(0) @binding(4) var<storage, read_write> noise: array<f32>;
@group(0) @binding(5) var<uniform> shape: Shape;
@compute @workgroup_size(64) fn unet(@builtin(global_invocation_id) at: vec3u) {
    if (at.x >= arrayLength(&noise)) { return; }
    let plane = at.x / shape.area;
    let value = latents[at.x] * weights[plane % 4u] + means[plane] + timestep[0] * 0.0005;
    noise[at.x] = value / (1.0 + abs(value));
}
"""

GUIDE = """
struct Step { states: u32, guidance: f32 }
@group(0) @binding(0) var<storage, read> noise: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<uniform> step: Step;
@compute @workgroup_size(64) fn guide(@builtin(global_invocation_id) at: vec3u) {
    let count = arrayLength(&noise) / 2u;
    if (at.x >= count) { return; }
    let negative = noise[at.x];
    state[count + at.x] = negative + step.guidance * (noise[count + at.x] - negative);
}
"""

KEEP = """
struct Step { states: u32, guidance: f32 }
@group(0) @binding(0) var<storage, read> noise: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<uniform> step: Step;
@compute @workgroup_size(64) fn keep(@builtin(global_invocation_id) at: vec3u) {
    if (at.x >= arrayLength(&noise)) { return; }
    if (step.states > 0u) { state[arrayLength(&noise) + at.x] = noise[at.x]; }
}
"""

# The latent enlarged: pixel (x, y) of colour c is latent channel c, shaded by channel 3.
VAE = """
struct Shape { side: u32, scale: u32 }
@group(0) @binding(0) var<storage, read> latents: array<f32>;
@group(0) @binding(1) var<storage, read_write> image: array<f32>;
@group(0) @binding(2) var<uniform> shape: Shape;
@compute @workgroup_size(64) fn vae(@builtin(global_invocation_id) at: vec3u) {
    if (at.x >= arrayLength(&image)) { return; }
    let width = shape.side * shape.scale;
    let colour = (at.x / (width * width)) % 3u;
    let batch = at.x / (3u * width * width);
    let y = (at.x / width) % width;
    let x = at.x % width;
    let area = shape.side * shape.side;
    let cell = batch * 4u * area + (y / shape.scale) * shape.side + x / shape.scale;
    let shade = f32(x % shape.scale + y % shape.scale) / 64.0;
    image[at.x] = 0.5 + 0.25 * latents[cell + colour * area] + shade * latents[cell + 3u * area];
}
"""

IMAGE = """
struct Shape { area: u32 }
@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read_write> pixels: array<u32>;
@group(0) @binding(2) var<uniform> shape: Shape;
fn level(at: u32) -> u32 { return u32(round(clamp(image[at], 0.0, 1.0) * 255.0)); }
@compute @workgroup_size(64) fn image_of(@builtin(global_invocation_id) at: vec3u) {
    if (at.x >= arrayLength(&pixels)) { return; }
    let first = (at.x / shape.area) * 3u * shape.area + at.x % shape.area;
    let red_green = level(first) | (level(first + shape.area) << 8u);
    pixels[at.x] = red_green | (level(first + 2u * shape.area) << 16u) | 0xff000000u;
}
"""

LIMITS = {
    "maxComputeInvocationsPerWorkgroup": 64,
    "maxComputeWorkgroupSizeX": 64,
    "maxComputeWorkgroupStorageSize": 0,
    "maxStorageBuffersPerShaderStage": 5,
    "maxStorageBufferBindingSize": 1 << 20,
    "maxBufferSize": 1 << 20,
}


@dataclass
class SyntheticBundle:
    """A bundle's folder, and what it must draw."""

    folder: Path
    batch: int
    guidance: bool
    table: np.ndarray
    weights: np.ndarray
    runs: dict[tuple[str, int], SamplerRun]
    tokenizer: Tokenizer

    def token_ids(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids[: LENGTH - 2]
        return ([BOS, *ids] + [EOS] * LENGTH)[:LENGTH]

    def expected(
        self,
        prompt: str,
        negative: str = "",
        *,
        scheduler: str = "plain",
        steps: int = 2,
        guidance: float = 7.5,
        seed: int = 0,
    ) -> np.ndarray:
        """RGBA8 [batch, height, width, 4], computed in double precision."""
        texts = [negative] * self.batch + [prompt] * self.batch if self.guidance else [prompt] * self.batch
        places = 1.0 + 0.25 * np.arange(LENGTH)[:, None]
        means = np.stack([(self.table[self.token_ids(text)] * places).mean(0) for text in texts])
        run = self.runs[scheduler, steps]
        generator = torch.Generator("cpu").manual_seed(seed)
        slots = np.zeros((2 + run.states, self.batch, CHANNELS, SIDE, SIDE))
        for call in range(run.calls + 1):
            if run.draws[call]:
                slots[0] = torch.randn(slots.shape[1:], generator=generator).double().numpy()
            slots[2:] = np.tensordot(run.rows[call].astype(np.float64), slots, 1)
            latent = slots[2]
            if call == run.calls:
                break
            timestep = run.timesteps[call]
            both = np.concatenate([latent] * (len(texts) // self.batch))
            value = both * self.weights[:, None, None] + means[:, :, None, None] + timestep * 0.0005
            output = value / (1 + np.abs(value))
            if self.guidance:
                first, second = np.split(output, 2)
                output = first + max(1.0, guidance) * (second - first)
            slots[1] = output
        cells = np.arange(WIDTH) // SCALE
        large = latent[:, :, cells][:, :, :, cells]
        within = np.arange(WIDTH) % SCALE
        image = 0.5 + 0.25 * large[:, :3] + (within[:, None] + within[None, :]) / 64 * large[:, 3:]
        levels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return np.concatenate([levels, np.full_like(levels[..., :1], 255)], axis=-1)


def make_bundle(
    folder: Path,
    *,
    batch: int = 1,
    guidance: bool = True,
    limits: dict[str, int] | None = None,
    features: tuple[str, ...] = (),
    shaders: dict[str, str] | None = None,
    unet_repeats: int = 1,
    passenger_bytes: int = 0,
    half: bool = False,
) -> SyntheticBundle:
    """Write a bundle into ``folder``.

    ``limits`` are added to what it requires, ``shaders`` replace WGSL by file stem, ``unet_repeats`` lets the UNet run
    that often over (to the same result), and ``passenger_bytes`` adds a shard of that size that nothing reads. ``half``
    adds a program for GPUs with shader-f16 over the same weights, whose means of the context are half floats.
    """
    random = np.random.default_rng(1)
    table = random.normal(0, 0.3, (258, 4)).astype(np.float32)
    weights = np.array([0.5, -0.4, 0.3, 0.2], np.float32)
    tokenizer = _make_tokenizer()
    writer = _Writer(folder)
    runs = _write_schedulers(writer, random)
    writer.file("tokenizer/tokenizer.json", tokenizer.to_str().encode())
    writer.file("tokenizer/tokenizer_config.json", json.dumps({"tokenizer_class": "CLIPTokenizer"}).encode())
    # Two shards; the first starts with padding, so that offsets matter.
    writer.file("weights/shard-000.bin", bytes(256) + table.tobytes())
    writer.file("weights/shard-001.bin", weights.tobytes())
    if passenger_bytes:
        writer.file("weights/shard-002.bin", random.bytes(passenger_bytes))
    programs = []
    for compute in ("f16", "f32") if half else ("f32",):
        plan = _make_plan(writer, batch, guidance, shaders or {}, unet_repeats, compute == "f16")
        if passenger_bytes:
            plan["buffers"].append({"bytes": passenger_bytes, "usage": "storage", "shard": "weights/shard-002.bin"})
        name = "plan.json" if compute == "f32" else f"plan-{compute}.json"
        writer.file(name, json.dumps(plan).encode())
        needed = (*features, "shader-f16") if compute == "f16" else features
        programs.append(_program(name, compute, {**LIMITS, **(limits or {})}, needed))
    if half:
        for file in writer.files:
            stem = Path(file).stem
            if stem in ("plan-f16", "means-f16", "unet-f16"):
                writer.files[file]["plans"] = ["plan-f16.json"]
            elif stem in ("plan", "means", "unet"):
                writer.files[file]["plans"] = ["plan.json"]
    tables = {
        name: {
            "file": f"schedulers/{name}.bin",
            "label": name.capitalize(),
            "class": f"{name.capitalize()}DiscreteScheduler",
            "noise": "stream",
            "runs": writer.runs[name],
        }
        for name in ("plain", "mixed")
    }
    writer.manifest(
        {
            "format": 2,
            "wgtune": "0.1.0",
            "model": {"name": "synthetic", "weights": "f32"},
            "image": {
                "width": WIDTH,
                "height": WIDTH,
                "batch": batch,
                "guidance": guidance,
                "latent": [CHANNELS, SIDE, SIDE],
            },
            "tier": "default",
            "programs": programs,
            "prompt": {"length": LENGTH, "bos": BOS, "eos": EOS, "pad": EOS},
            "schedulers": {"default": "plain", "config": {}, "tables": tables},
        }
    )
    return SyntheticBundle(folder, batch, guidance, table, weights, runs, tokenizer)


def _with_half_means(source: str) -> str:
    """A shader of the UNet in which the means of the context are half floats."""
    source = source.replace("means: array<f32>", "means: array<f16>").replace("+ means[plane]", "+ f32(means[plane])")
    return "enable f16;\n" + source.replace("means[at.x] = sum / f32(tokens)", "means[at.x] = f16(sum / f32(tokens))")


def _program(plan: str, compute: str, limits: dict[str, int], features: tuple[str, ...]) -> dict[str, Any]:
    return {
        "plan": plan,
        "compute": compute,
        "capture": "0" * 64,
        "requires": {"limits": limits, "features": list(features)},
        "tuned": {
            "device": "vulkan:test",
            "software": True,
            "created": "2026-11-21T02:00:00Z",
            "kernels": 8,
            "from_records": 6 if compute == "f32" else 5,
            "improved": 4,
            "from_baseline": 2,
            "baseline_time_share": 0.1,
            "borrowed": [],
        },
        "dispatches": {"longest_s": 0.01, "sliced": 0},
    }


@dataclass
class _Writer:
    folder: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def file(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        info = file_info(data)
        self.files[path] = {"bytes": info.nbytes, "sha256": info.sha256, "pieces": info.pieces}

    def manifest(self, content: dict[str, Any]) -> None:
        (self.folder / "manifest.json").write_text(json.dumps({**content, "files": self.files}), encoding="utf-8")


def _make_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return tokenizer


def _write_schedulers(writer: _Writer, random: np.random.Generator) -> dict[tuple[str, int], SamplerRun]:
    """Made-up recurrences: one of a single state, and one of three that draws noise after every other call."""
    made = {}
    for name, states, numbers in (("plain", 1, (2, 4, 20)), ("mixed", 3, (3, 4))):
        table = SamplerTable(Sampler.EULER, name)
        for count in numbers:
            # One scheduler calls the UNet once more than it has steps, as PNDM does.
            calls = count + (name == "mixed")
            rows = random.normal(0, 0.3, (calls + 1, states, 2 + states)).astype(np.float32)
            rows[0, :, 1:] = 0
            rows[0, 0, 0] = 1
            draws = np.arange(calls + 1) % 2 == 0 if name == "mixed" else np.arange(calls + 1) == 0
            rows[1:, :, 0][~draws[1:]] = 0
            table.runs[count] = made[name, count] = SamplerRun(
                np.linspace(999, 1, calls).astype(np.float32), draws, rows
            )
        data, places = pack_table(table)
        writer.file(f"schedulers/{name}.bin", data)
        writer.runs[name] = {
            str(count): {"offset": place.offset, "calls": place.calls, "states": place.states}
            for count, place in places.items()
        }
    return made


def _make_plan(
    writer: _Writer, batch: int, guidance: bool, shaders: dict[str, str], unet_repeats: int, half: bool
) -> dict[str, Any]:
    latent, copies, most_states = batch * CHANNELS * SIDE * SIDE * 4, 2 if guidance else 1, 3
    embedding = LENGTH * 4 * 4
    buffers: list[dict[str, Any]] = []

    def buffer(size: int, **more: Any) -> list[int]:
        buffers.append({"bytes": size, "usage": "storage", **more})
        return [len(buffers) - 1, 0, size]

    def uniform(*words: int) -> list[int]:
        return buffer(16, usage="uniform", words=list(words))

    ids, text = buffer(LENGTH * 4), buffer(embedding)
    # The context is a range in the middle of its buffer.
    context = [buffer(512 + copies * batch * embedding)[0], 256, copies * batch * embedding]
    state, coefficients = buffer((most_states + 2) * latent), buffer(most_states * (most_states + 2) * 4)
    step, timestep = buffer(16, usage="uniform"), buffer(4)
    latents, noise, decoded = buffer(copies * latent), buffer(copies * latent), buffer(latent)
    means = buffer(copies * batch * CHANNELS * (2 if half else 4))
    image, pixels = buffer(batch * 3 * WIDTH * WIDTH * 4), buffer(batch * WIDTH * WIDTH * 4)
    table = [buffer(8192, shard="weights/shard-000.bin")[0], 256, 258 * 4 * 4]
    channel_weights = [buffer(256, shard="weights/shard-001.bin")[0], 0, 16]
    listed: list[dict[str, str]] = []

    def dispatch(name: str, entry: str, source: str, grid: int, *bindings: list[int]) -> dict[str, Any]:
        source = shaders.get(name, source)
        if half and name in ("means", "unet"):
            name, source = f"{name}-f16", _with_half_means(source)
        file = f"kernels/{name}.wgsl"
        writer.file(file, source.encode())
        listed.append({"file": file, "entry": entry})
        return {"shader": len(listed) - 1, "bindings": list(bindings), "grid": [grid, 1, 1]}

    def groups(size: list[int]) -> int:
        return -(-size[2] // 4 // 64)

    unet = [
        dispatch("means", "means_of", MEANS, copies * batch * CHANNELS, context, means, uniform(0)),
        dispatch(
            "unet",
            "unet",
            UNET,
            groups(noise),
            latents,
            means,
            channel_weights,
            timestep,
            noise,
            uniform(SIDE * SIDE),
        ),
    ]
    glue = ("guide", GUIDE) if guidance else ("keep", KEEP)
    stages = {
        "clip": [dispatch("clip", "clip", CLIP, 1, ids, table, text)],
        "schedule": [
            dispatch("schedule", "schedule", SCHEDULE, groups(decoded), state, coefficients, latents, decoded, step)
        ],
        "unet": unet * unet_repeats,
        "guide": [dispatch(glue[0], glue[0], glue[1], groups(decoded), noise, state, step)],
        "vae": [dispatch("vae", "vae", VAE, groups(image), decoded, image, uniform(SIDE, SCALE))],
        "image": [dispatch("image", "image_of", IMAGE, groups(pixels), image, pixels, uniform(WIDTH * WIDTH))],
    }
    names = {
        "token_ids": ids,
        "text_embedding": text,
        "context": context,
        "state": state,
        "coefficients": coefficients,
        "step": step,
        "timestep": timestep,
        "pixels": pixels,
    }
    return {"buffers": buffers, "names": names, "shaders": listed, "stages": stages}
