"""Captured stages on disk, each in a zip file named by the SHA-256 of everything that shapes it.

A file that cannot be read counts as missing: the stage is captured again, and the file is replaced.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...support.enums import WeightPrecision
from ...support.paths import cache_dir, replaced_file
from ..ir import Call, CaptureOptions, Kernel, Operand, Stage, TensorSpec, WeightFormat
from .code_digest import code_digest
from .sources import ModelSource

_CODE = "wgtune.tuner.capture.model_capture"
"""The module that captures and stores. A change in it, or in what it imports, makes all files stale."""

_TOOLS = ("apache-tvm", "torch", "diffusers", "transformers")


def stage_key(source: ModelSource, options: CaptureOptions, stage: str) -> str:
    """Return the SHA-256 of what shapes a stage: code, tool versions, options and the model's configurations.

    All configurations count, because stages read each other's.
    """
    shaped_by = {
        "code": code_digest(_CODE),
        "stage": stage,
        "configs": source.configs,
        "tokens": source.token_length,
        "padding": asdict(source.padding) if source.padding else None,
        "options": asdict(options),
        "tools": {name: version(name) for name in _TOOLS},
    }
    return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()


def capture_key(stage_keys: Sequence[str]) -> str:
    """Return the key of a capture made of these stages, in order."""
    return hashlib.sha256("\n".join(stage_keys).encode()).hexdigest()


def save(key: str, stage: Stage, kernels: dict[str, Kernel]) -> None:
    """Write a stage; readers see the complete file or none."""
    import tvm

    functions = tvm.IRModule({f"k{index}": kernel.func for index, kernel in enumerate(kernels.values())})
    with (
        replaced_file(_path(key)) as whole,
        zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        archive.writestr("stage.json", json.dumps(_stage_json(stage)))
        archive.writestr("kernels.json", json.dumps([_kernel_json(kernel) for kernel in kernels.values()]))
        archive.writestr("functions.json", tvm.ir.save_json(functions))
        archive.writestr("weight_transform.json", stage.weight_transform)
        for index, array in enumerate(stage.constants):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            archive.writestr(f"constants/{index}.npy", buffer.getvalue())


def load(key: str) -> tuple[Stage, dict[str, Kernel]] | None:
    """Return the stage of ``key`` with its kernels by id; None where the file is missing or damaged."""
    path = _path(key)
    if not path.is_file():
        return None
    # It loads TVM, which is not needed where there is no such file.
    from ...database.tvm.graph_json import load_json

    try:
        with zipfile.ZipFile(path) as archive:
            stage = _stage(json.loads(archive.read("stage.json")))
            stage.weight_transform = archive.read("weight_transform.json").decode()
            names = [name for name in archive.namelist() if name.startswith("constants/")]
            stage.constants = [
                np.load(io.BytesIO(archive.read(f"constants/{index}.npy")), allow_pickle=False)
                for index in range(len(names))
            ]
            functions = load_json(archive.read("functions.json").decode())
            kernels = {}
            for index, data in enumerate(json.loads(archive.read("kernels.json"))):
                kernel = _kernel(data, functions[f"k{index}"].with_attr("global_symbol", "main"))
                kernels[kernel.id] = kernel
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError):
        return None
    return stage, kernels


def _path(key: str) -> Path:
    return cache_dir() / "captures" / f"{key}.zip"


def _stage_json(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "inputs": [asdict(spec) for spec in stage.inputs],
        "outputs": [asdict(spec) for spec in stage.outputs],
        "params": [asdict(spec) for spec in stage.params],
        "temps": stage.temps,
        "calls": [[c.kernel, [[o.space, o.index, o.offset, o.nbytes] for o in c.operands]] for c in stage.calls],
        "weight_names": stage.weight_names,
        "weight_formats": [[f.shape, f.precision.value, f.terms] for f in stage.weight_formats],
    }


def _stage(data: dict[str, Any]) -> Stage:
    return Stage(
        name=data["name"],
        inputs=[_spec(spec) for spec in data["inputs"]],
        outputs=[_spec(spec) for spec in data["outputs"]],
        params=[_spec(spec) for spec in data["params"]],
        constants=[],
        temps=data["temps"],
        calls=[Call(kernel, tuple(Operand(*operand) for operand in operands)) for kernel, operands in data["calls"]],
        weight_names=data["weight_names"],
        weight_formats=[
            WeightFormat(tuple(shape), WeightPrecision(precision), (first, end))
            for shape, precision, (first, end) in data["weight_formats"]
        ],
    )


def _kernel_json(kernel: Kernel) -> dict[str, Any]:
    return {
        "id": kernel.id,
        "name": kernel.name,
        "text": kernel.text,
        "params": [asdict(spec) for spec in kernel.params],
        "outputs": kernel.outputs,
        "flops": kernel.flops,
        "nbytes": kernel.nbytes,
    }


def _kernel(data: dict[str, Any], func: Any) -> Kernel:
    if hashlib.sha256(data["text"].encode()).hexdigest() != data["id"]:
        raise ValueError("a kernel's id is not the SHA-256 of its text")
    return Kernel(
        id=data["id"],
        name=data["name"],
        text=data["text"],
        func=func,
        params=tuple(_spec(spec) for spec in data["params"]),
        outputs=tuple(data["outputs"]),
        flops=data["flops"],
        nbytes=data["nbytes"],
    )


def _spec(data: dict[str, Any]) -> TensorSpec:
    return TensorSpec(data["name"], tuple(data["shape"]), data["dtype"])
