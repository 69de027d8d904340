"""A stage's weights, computed one at a time: the same bytes as all at once, in the memory of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import tvm
from safetensors.torch import save_file
from tvm import relax

from wgtune.build.bundle.weights import ShardWriter, layout_shards, stored_tensors
from wgtune.database.tvm.graph_json import load_json
from wgtune.support.enums import WeightPrecision
from wgtune.support.errors import CaptureError
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.capture.weights.checkpoint import WINDOW_BYTES, Checkpoint
from wgtune.tuner.capture.weights.transform import TRANSFORM, check_weights, transform_weights
from wgtune.tuner.ir import Call, Operand, Stage, TensorSpec, WeightFormat


def all_at_once(stage: Stage, weights: Any) -> list[np.ndarray]:
    """The weights as TVM computes them with the whole checkpoint in memory."""
    module = load_json(stage.weight_transform)
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    types = module[TRANSFORM].params[0].ty.fields
    tensors = [
        tvm.runtime.tensor(weights[name].to(getattr(torch, str(ty.dtype))).numpy())
        for name, ty in zip(stage.weight_names, types, strict=True)
    ]
    return [np.from_dlpack(result) for result in machine[TRANSFORM](tensors)]


@pytest.mark.parametrize("name", ["clip", "unet", "vae"])
def test_weights_are_those_of_the_whole_transform_bit_by_bit(demo_folder: Path, name: str) -> None:
    source = resolve_model(str(demo_folder))
    stage = capture_model(source, stages=[name]).stages[name]
    weights = source.load_weights(name)
    expected = all_at_once(stage, weights)
    count = 0
    for value, reference, spec in zip(transform_weights(stage, weights), expected, stage.params, strict=True):
        assert value.shape == spec.shape and value.dtype == spec.dtype
        assert value.tobytes() == reference.tobytes()
        count += 1
    assert count == len(stage.params) > 20


def test_halves_become_the_captured_dtype(demo_folder: Path) -> None:
    source = resolve_model(str(demo_folder))
    stage = capture_model(source, stages=["vae"]).stages["vae"]
    halves = {name: value.half() for name, value in source.load_weights("vae").items()}
    widened = {name: value.float().numpy() for name, value in halves.items()}
    for a, b in zip(transform_weights(stage, halves), transform_weights(stage, widened), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_another_configuration_is_refused_before_anything_is_computed(demo_folder: Path) -> None:
    source = resolve_model(str(demo_folder))
    stage = capture_model(source, stages=["clip"]).stages["clip"]
    weights = dict(source.load_weights("clip"))
    name = "encoder.layers.1.mlp.fc1.weight"
    with pytest.raises(CaptureError, match=rf"{name} is \(4, 4\)"):
        transform_weights(stage, {**weights, name: torch.zeros(4, 4)})
    # The decoder's attention was once stored as 1 × 1 convolutions.
    check_weights(stage, {**weights, name: weights[name][..., None, None]})
    del weights[name]
    with pytest.raises(CaptureError, match=f"lacks {name}"):
        check_weights(stage, weights)


def transposing_stage(count: int, side: int) -> Stage:
    """A stage that reads ``count`` square weights, transposed."""
    builder = relax.BlockBuilder()
    weights = relax.Var("weights", tvm.ir.TupleType([relax.TensorType((side, side), "float32")] * count))
    with builder.function(TRANSFORM, [weights]):
        with builder.dataflow():
            read = [builder.emit(relax.TupleGetItem(weights, i)) for i in range(count)]
            results = [builder.emit_output(relax.op.permute_dims(tensor)) for tensor in read]
        builder.emit_func_output(relax.Tuple(results))
    params = [TensorSpec(f"param{i}", (side, side), "float32") for i in range(count)]
    call = Call("k", tuple(Operand("param", i, 0, spec.nbytes) for i, spec in enumerate(params)))
    stage = Stage("unet", [], [], params, [], [], [call], [f"w{i}" for i in range(count)])
    stage.weight_transform = tvm.ir.save_json(builder.get())
    stage.weight_formats = [WeightFormat(spec.shape, WeightPrecision.F32) for spec in params]
    return stage


def write_all(files: list[str], into: str, count: int, side: int) -> None:
    """Write the shards of `transposing_stage`; print by how many bytes this process's memory grew meanwhile."""
    list(transform_weights(transposing_stage(1, 8), {"w0": torch.zeros(8, 8)}))  # what is loaded once
    stage = transposing_stage(count, side)
    process = psutil.Process()
    before = process.memory_info().rss
    most = [before]
    (stored,) = stored_tensors({"unet": stage})
    # Resident memory counts the pages of mapped files too.
    with ShardWriter(
        Path(into), layout_shards([stored]), lambda done: most.append(process.memory_info().rss)
    ) as writer:
        writer.write_stage(stored, transform_weights(stage, Checkpoint([Path(file) for file in files])))
    assert len(most) == count + 1
    print(max(most) - before)


def test_weights_are_written_in_the_memory_of_a_few_tensors(tmp_path: Path) -> None:
    count, side = 64, 1024
    files = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    for start, file in enumerate(files):
        save_file({f"w{i}": torch.full((side, side), float(i)) for i in range(start, count, 2)}, file)
    # A process of its own: memory that others freed is not given back.
    code = f"import test_weight_transform as t; t.write_all({files!r}, {str(tmp_path)!r}, {count}, {side})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < WINDOW_BYTES + 8 * 4 * side * side < count * 4 * side * side / 2
    shards = sorted((tmp_path / "weights").iterdir())
    written = np.concatenate([np.fromfile(shard, np.float32) for shard in shards])
    np.testing.assert_array_equal(written.reshape(count, -1)[:, 0], np.arange(count))
