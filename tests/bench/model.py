"""SD 1.5 at 512 × 512 with random weights: what its bundles weigh, need and launch, for each precision of weights.

Untuned and with both programs, of floats and of half floats between kernels. Takes half an hour, 8 GiB of disk.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from wgtune.build.format.reader import Bundle
from wgtune.cli.demo.model import write_clip_tokenizer, write_model_index
from wgtune.reports.tables import Column, print_rows
from wgtune.support.console import progress
from wgtune.support.enums import WeightPrecision
from wgtune.support.formatting import duration, size
from wgtune.tuner.capture.sources import resolve_model

if TYPE_CHECKING:
    import torch

WEIGHTS = (WeightPrecision.F16, WeightPrecision.Q8, WeightPrecision.Q4)

_FILES = {"clip": "text_encoder/model", "unet": "unet/diffusion_pytorch_model", "vae": "vae/diffusion_pytorch_model"}


def run(console: Console) -> None:
    """Print a row for each precision of weights and program."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, progress("SD 1.5") as report:
        model = Path(folder, "model")
        # In a process of its own: on Linux a build's largest memory begins with its parent's.
        subprocess.run([sys.executable, "-m", "tests.bench.model", str(model)], check=True)
        for number, weights in enumerate(WEIGHTS):
            report(f"bundle of {weights.value} weights", number / len(WEIGHTS))
            output = Path(folder, f"bundle-{weights.value}")
            peak = _build(model, output, weights)
            rows += _rows(Bundle.open(output), peak)
    columns = [
        Column("weights", "weights"),
        Column("compute", "compute"),
        Column("download", "download", "right", size),
        Column("gpu", "GPU memory", "right", size),
        Column("scratch", "of it scratch", "right", size),
        Column("binding", "largest binding", "right", size),
        Column("dispatches", "UNet dispatches", "right", str),
        Column("longest_s", "longest, slow GPU", "right", duration),
        Column("peak", "memory of build", "right", size),
    ]
    print_rows(rows, columns, json=False, console=console, title="SD 1.5, 512 × 512, default tier, untuned")


def write_model(folder: Path) -> None:
    """Write a diffusers folder of SD 1.5 with random half floats, as half-precision files."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    source = resolve_model("sd-v1-5")
    configs = source.configs
    with torch.device("meta"):
        networks = {
            "clip": CLIPTextModel(CLIPTextConfig(**configs["clip"])),
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
        }
    generator = torch.Generator().manual_seed(1)
    for stage, network in networks.items():
        path = folder / f"{_FILES[stage]}.fp16.safetensors"
        path.parent.mkdir(parents=True)
        save_file(dict(_random(network, generator)), path)
        _write_json(path.parent / "config.json", configs[stage])
    _write_json(folder / "scheduler" / "scheduler_config.json", source.scheduler)
    write_clip_tokenizer(folder / "tokenizer")
    write_model_index(folder)


def _random(network: torch.nn.Module, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield weights that keep the deviation of what they are applied to."""
    import torch

    for name, like in network.state_dict().items():
        if not like.is_floating_point():
            continue
        if like.dim() > 1:
            drawn = torch.randn(like.shape, generator=generator) / math.sqrt(like[0].numel())
        else:
            drawn = torch.full(like.shape, float(name.endswith("weight")))
        yield name, drawn.half()


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1))


def _build(model: Path, output: Path, weights: WeightPrecision) -> int:
    """Build a bundle in a process of its own, and return the bytes that it held at its peak."""
    options = ["--weights", weights.value, "--compute", "auto", "--no-page", "--max-steps", "20"]
    command = [sys.executable, "-m", "wgtune", "build", "--model", str(model), "-o", str(output), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with status {child.returncode}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _rows(bundle: Bundle, peak: int) -> Iterator[dict[str, Any]]:
    for program in bundle.programs:
        info, plan = program.info, program.plan
        yield {
            "weights": bundle.manifest.model.weights.value,
            "compute": info.compute.value,
            "download": sum(file.nbytes for file in bundle.manifest.files_of(info).values()),
            "gpu": sum(buffer.nbytes for buffer in plan.buffers),
            "scratch": sum(buffer.nbytes for buffer in plan.buffers if not buffer.shard),
            "binding": max(b.nbytes for stage in plan.stages.values() for one in stage for b in one.bindings),
            "dispatches": len(plan.stages["unet"]),
            "longest_s": info.dispatches.longest_s,
            "peak": peak,
        }


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
