"""wgtune: tune the GPU kernels of Stable Diffusion, keep every record, and ship them to the browser as WebGPU.

The names below are the public API. They are stable: within one major version they keep their meaning, and arguments are
only added. Everything else may move between releases. The `examples/` folder of the repository uses them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build.bundle.builder import BuildRequest, BuildSummary, build_bundle
    from .build.runtime.pipeline import StableDiffusionPipeline
    from .database.store import Store
    from .database.tvm.database import ScheduleDatabase
    from .devices.discovery.discovery import find_device
    from .support.errors import WgtuneError
    from .tuner.capture.model_capture import capture_model
    from .tuner.session.events import TuneSummary
    from .tuner.session.request import TuneRequest
    from .tuner.session.session import tune

__all__ = [
    "BuildRequest",
    "BuildSummary",
    "ScheduleDatabase",
    "StableDiffusionPipeline",
    "Store",
    "TuneRequest",
    "TuneSummary",
    "WgtuneError",
    "build_bundle",
    "capture_model",
    "find_device",
    "tune",
]

_MODULES = {
    "BuildRequest": ".build.bundle.builder",
    "BuildSummary": ".build.bundle.builder",
    "ScheduleDatabase": ".database.tvm.database",
    "StableDiffusionPipeline": ".build.runtime.pipeline",
    "Store": ".database.store",
    "TuneRequest": ".tuner.session.request",
    "TuneSummary": ".tuner.session.events",
    "WgtuneError": ".support.errors",
    "build_bundle": ".build.bundle.builder",
    "capture_model": ".tuner.capture.model_capture",
    "find_device": ".devices.discovery.discovery",
    "tune": ".tuner.session.session",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import wgtune` itself stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
