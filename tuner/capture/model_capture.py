"""From a model to its kernels: each stage is built without weights on torch's meta device, exported and lowered.

Neither a GPU nor the model's weights are needed. Each stage is kept in the cache (see `stage_cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir import Capture, CaptureOptions, Kernel, Stage
from . import stage_cache
from .sources import ModelSource, resolve_model

_DEFAULT = CaptureOptions()


def capture_model(
    source: ModelSource | str,
    options: CaptureOptions = _DEFAULT,
    stages: Sequence[str] | None = None,
    *,
    use_cache: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Capture:
    """Turn a model into kernels.

    Args:
        source: the model; a string is resolved as `resolve_model` does.
        options: image size, batch and guidance.
        stages: names of the stages to capture; None for all.
        use_cache: whether to read and write the capture cache.
        progress: called with a line of text before each step.

    Raises:
        CaptureError: the model cannot be found; it lacks a stage; a stage cannot be built, exported or converted.
    """
    if isinstance(source, str):
        source = resolve_model(source)
    wanted = source.select_stages(stages)
    report = progress or (lambda line: None)
    captured: dict[str, Stage] = {}
    kernels: dict[str, Kernel] = {}
    keys = []
    for name in wanted:
        key = stage_cache.stage_key(source, options, name)
        keys.append(key)
        found = stage_cache.load(key) if use_cache else None
        if found is None:
            report(f"capturing {name} of {source.name}")
            # Imported here because a capture from the cache needs neither torch nor the importer.
            from .exporter import import_stage

            found = import_stage(source, options, name)
            if use_cache:
                stage_cache.save(key, *found)
        else:
            report(f"{name} of {source.name} is in the cache")
        captured[name] = found[0]
        for identity, kernel in found[1].items():
            kernels.setdefault(identity, kernel)
    return Capture(stage_cache.capture_key(keys), source.name, options, captured, kernels)
