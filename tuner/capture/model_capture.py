"""From a model to kernels: each stage is built without weights on torch's meta device, exported, and lowered.

Nothing here needs a GPU or the model's weights. Stages are captured one by one and kept in the cache (see `cache`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir import Capture, CaptureOptions, Kernel, Stage
from . import stage_cache as cache
from .sources import ModelSource

_DEFAULT = CaptureOptions()


def capture_model(
    source: ModelSource,
    options: CaptureOptions = _DEFAULT,
    stages: Sequence[str] | None = None,
    *,
    use_cache: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Capture:
    """Capture ``source``, or only its ``stages``; ``progress`` is called with a line of text before each step.

    Raises CaptureError for a stage that the model does not have, and where it cannot be built, exported or converted.
    """
    wanted = source.select_stages(stages)
    say = progress or (lambda line: None)
    captured: dict[str, Stage] = {}
    kernels: dict[str, Kernel] = {}
    keys = []
    for name in wanted:
        key = cache.stage_key(source, options, name)
        keys.append(key)
        found = cache.load(key) if use_cache else None
        if found is None:
            say(f"capturing {name} of {source.name}")
            # Imported here because a capture from the cache needs neither torch nor the importer.
            from .exporter import import_stage

            found = import_stage(source, options, name)
            if use_cache:
                cache.save(key, *found)
        else:
            say(f"{name} of {source.name} is in the cache")
        captured[name] = found[0]
        for identity, kernel in found[1].items():
            kernels.setdefault(identity, kernel)
    return Capture(cache.capture_key(keys), source.name, options, captured, kernels)
