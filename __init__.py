"""wgtune: tune the GPU kernels of Stable Diffusion, keep what is learned, and ship it to the browser as WebGPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build.runtime.pipeline import StableDiffusionPipeline

__all__ = ["StableDiffusionPipeline"]


def __getattr__(name: str) -> Any:
    # ImportSummary on first use, so that `import wgtune` and the command line stay fast.
    if name == "StableDiffusionPipeline":
        from .build.runtime.pipeline import StableDiffusionPipeline

        return StableDiffusionPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
