"""How often one image launches each kernel of a model, from the database alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..database.reader import Reader
from ..database.schema.columns import shown
from ..database.schema.records import ModelInfo, WorkloadInfo
from ..support.enums import AttentionForm
from ..support.errors import DatabaseError, UsageError
from ..support.serialization import restored_fields
from ..tuner.ir import CaptureOptions


@dataclass(frozen=True)
class KernelLaunches:
    """One kernel: ``stages`` gives its launches for one batch of images in each stage that uses it."""

    workload: WorkloadInfo
    stages: dict[str, int]

    @property
    def total(self) -> int:
        """Launches in all stages."""
        return sum(self.stages.values())


@dataclass(frozen=True)
class ModelLaunches:
    """A model at a number of steps: its options, runs of each stage, and kernels in order of first launch."""

    model: ModelInfo
    options: CaptureOptions
    steps: int
    runs: dict[str, int]
    kernels: list[KernelLaunches]

    @property
    def workload_ids(self) -> list[str]:
        """Every kernel's id."""
        return [kernel.workload.id for kernel in self.kernels]

    @property
    def per_what(self) -> str:
        """What the launches are counted for, in words."""
        return "image" if self.options.batch == 1 else f"batch of {self.options.batch} images"


def model_launches(store: Reader, capture_key: str, steps: int) -> ModelLaunches:
    """Return the launches of the model with that capture key.

    Raises:
        UsageError: the database has no such model.
        DatabaseError: the model's options in the database are damaged.
    """
    model = next((model for model in store.models() if model.capture_key == capture_key), None)
    if model is None:
        raise UsageError(f"there is no model {capture_key!r} in {store.name}", "wgtune db info lists what there is")
    options = _options(model, store.name)
    calls = store.model_kernels(capture_key)
    workloads = store.workloads({kernel.workload_id for kernel in calls})
    if unknown := {kernel.workload_id for kernel in calls} - workloads.keys():
        raise DatabaseError(
            f"{store.name}: the model {model.name} launches {min(unknown)[:12]}, which is no workload there",
            "the file is damaged: restore a copy; `wgtune db check` says what is wrong",
        )
    runs = {kernel.stage: options.runs_per_image(kernel.stage, steps) for kernel in calls}
    stages: dict[str, dict[str, int]] = {}
    for kernel in calls:
        stages.setdefault(kernel.workload_id, {})[kernel.stage] = kernel.calls * runs[kernel.stage]
    kernels = [KernelLaunches(workloads[workload_id], launches) for workload_id, launches in stages.items()]
    return ModelLaunches(model, options, steps, runs, kernels)


def _options(model: ModelInfo, name: str) -> CaptureOptions:
    """Return the options that this program knows. They come from a file, so every value is checked."""
    options = CaptureOptions(attention=AttentionForm.SPLIT)  # as captured before there was a choice
    for field in fields(CaptureOptions):
        if field.name not in model.options:
            continue  # an older program's
        value = model.options[field.name]
        try:
            restored = restored_fields(CaptureOptions, {field.name: value})
        except ValueError:
            restored = {}
        if not restored or (type(value) is int and value <= 0):
            raise DatabaseError(
                f"{name}: the model {model.name} has a {field.name} of {shown(value)}", "restore a copy"
            )
        options = replace(options, **restored)
    return options
