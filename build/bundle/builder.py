"""Builds a bundle from a model and a database; writes nothing before every part is known to fit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from ...database.reader import Reader
from ...database.schema.records import DeviceInfo
from ...devices.limits import Tier, find_tier
from ...devices.program import Program
from ...support.enums import Match, WeightPrecision
from ...support.errors import BundleError, UsageError
from ...support.formatting import duration, size
from ...tuner.capture.sources import ModelSource, resolve_model
from ...tuner.capture.weights.checkpoint import Checkpoint
from ...tuner.ir import Capture, CaptureOptions
from ..format.documents import MEASURED, PROVENANCE
from ..format.manifest import (
    FORMAT,
    MANIFEST,
    PLAN,
    BorrowedInfo,
    DispatchesInfo,
    FileInfo,
    ImageInfo,
    Manifest,
    ModelInfo,
    Requirements,
    SchedulersInfo,
    TableInfo,
    TunedInfo,
)
from ..format.sampler_tables import Sampler, SamplerTable, make_tables, pack_table
from .assembly import Assembled, assemble, find_pipeline_tensors
from .atomic_folder import check_target, replace_folder
from .device_limits import check_plan, check_tensors, required_limits
from .dispatch_times import LONGEST_S, limit_dispatches
from .documents import make_provenance
from .program_choice import (
    ProgramChoice,
    borrowed_kernels,
    choose_programs,
    count_searched,
    measured_seconds,
    stage_seconds,
    untuned_share,
)
from .shared_shaders import share_shaders
from .tokenizer import tokenizer_files
from .weights import ShardLayout, ShardWriter, layout_shards

ProgressCallback = Callable[[str, float], None]
"""Receives the current step and the share of the whole that is done, from 0 to 1."""

_WEIGHTS_FROM = 0.5
"""Share of a build that is done when its weights are written."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    ``model`` is what `resolve_model` understands and has weights. ``device`` is the device whose records are used, None
    for baselines only. ``max_steps`` is the largest number of inference steps that the bundle offers; ``steps`` is the
    usual number, for which times and shares are estimated. ``page`` puts the page into the bundle. ``borrow`` is the
    farthest device whose schedule a kernel without a record may use.
    """

    model: str
    output: Path
    device: DeviceInfo | None = None
    options: CaptureOptions = field(default_factory=CaptureOptions)
    tier: Tier = field(default_factory=lambda: find_tier("default"))
    samplers: tuple[Sampler, ...] = tuple(Sampler)
    max_steps: int = 50
    steps: int = 20
    page: bool = True
    borrow: Match = Match.PORTABLE


@dataclass(frozen=True)
class BuildSummary:
    """What was built.

    - ``from_records`` kernels run a schedule verified on the device, of which ``searched`` were found by search; for
      the others the baseline is as fast as any
    - ``borrowed``: kernels that run schedules verified on another device only
    - ``from_baseline`` kernels run their untuned baseline, unmeasured, and take ``baseline_time_share`` of an image's
      time (estimated; None where nothing was measured)
    - ``measured_s``: sum of the records' times for one batch of images, in seconds
    - ``stage_records_s``: the same for one run of each stage, without the stages of which a kernel has no record
    - ``scratch_bytes``: memory of intermediates; ``weight_bytes``: memory of weights, which are ``weights``
    - ``longest_dispatch_s``: estimated time of the longest dispatch on a slow GPU, in seconds; ``sliced`` kernels run
      in slices of their grids, because they would take longer
    - ``warnings``: sentences for the user
    """

    folder: Path
    kernels: int
    from_records: int
    searched: int
    from_baseline: int
    baseline_time_share: float | None
    measured_s: float
    dispatches: int
    nbytes: int
    weight_bytes: int
    scratch_bytes: int
    limits: dict[str, int]
    features: tuple[str, ...]
    samplers: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    borrowed: tuple[BorrowedInfo, ...] = ()
    stage_records_s: Mapping[str, float] = field(default_factory=dict)
    weights: WeightPrecision = WeightPrecision.F32
    longest_dispatch_s: float = 0.0
    sliced: int = 0


def _silent(what: str, done: float) -> None:
    pass


def build_bundle(request: BuildRequest, store: Reader | None, progress: ProgressCallback = _silent) -> BuildSummary:
    """Build ``request.output``; an earlier bundle there is replaced only when the new one is whole.

    Args:
        request: what to build.
        store: the database with the device's records, None for baselines only.
        progress: receives each step and the share of the whole that is done.

    Raises:
        BundleError: the folder must not be replaced; the model has no weights, or is of a kind that the runtimes cannot
            drive; a kernel, tensor or plan does not fit the tier; no scheduler fits; the page is not built.
        CaptureError: the model cannot be found or captured.
        UsageError: the request itself makes no sense.
    """
    started = time.perf_counter()
    warnings: list[str] = []
    if not 1 <= request.max_steps <= 1000:
        raise UsageError(f"a bundle cannot offer up to {request.max_steps} steps", "choose 1 to 1000")
    check_target(request.output)
    page = _page_files() if request.page else []
    source, model_folder = _weighted_source(request.model)
    prepared = _prepare(request, source, store, progress, warnings.append)
    weights = _open_weights(prepared.capture, source)
    files, prompt = tokenizer_files(model_folder / "tokenizer", source.token_length)
    tables = {}
    for sampler, table in prepared.tables.items():
        name = f"schedulers/{sampler.value}.bin"
        files[name], runs = pack_table(table)
        tables[sampler.value] = TableInfo(name, sampler.class_name, runs)
    files |= {name: text.encode("utf-8") for name, text in prepared.assembled.sources.items()}
    files[PLAN] = prepared.assembled.plan.to_json()
    files[PROVENANCE] = make_provenance(
        prepared.capture, prepared.choices, prepared.programs, prepared.assembled, store
    ).to_json()
    infos = {name: FileInfo(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    with replace_folder(request.output) as folder:
        for name, data in files.items():
            _write(folder / name, data)
        infos |= _write_weights(folder, prepared, weights, progress)
        for name, origin in page:
            _write(folder / name, origin.read_bytes())
        manifest = Manifest(
            format=FORMAT,
            wgtune=metadata.version("wgtune"),
            model=ModelInfo(source.name, prepared.capture.key, request.options.weights),
            image=prepared.image,
            tier=request.tier.name,
            requires=prepared.requires,
            tuned=_tuned_info(request, prepared),
            prompt=prompt,
            schedulers=SchedulersInfo(prepared.default.value, source.scheduler, tables),
            files=dict(sorted(infos.items())),
            documents=(PROVENANCE,),
            dispatches=prepared.dispatches,
        )
        # Last, so that a folder with a manifest is whole.
        _write(folder / MANIFEST, manifest.to_json())
    progress("done", 1.0)
    return _summary(request, manifest, prepared, warnings, time.perf_counter() - started)


@dataclass
class _Prepared:
    """What is made of the model before anything is written."""

    capture: Capture
    image: ImageInfo
    requires: Requirements
    default: Sampler
    tables: dict[Sampler, SamplerTable]
    choices: dict[str, ProgramChoice]
    programs: dict[str, Program]
    """Those of the choices, with shared shaders."""
    layout: ShardLayout
    assembled: Assembled
    dispatches: DispatchesInfo


def _weighted_source(model: str) -> tuple[ModelSource, Path]:
    """Return the model and its folder; raise BundleError where it has no weights or no scheduler."""
    source = resolve_model(model)
    if not source.has_weights or source.folder is None:
        raise BundleError(
            f"{source.name} is a configuration without weights, and a bundle needs them",
            "give a diffusers folder with weights, such as one made by save_pretrained",
        )
    if not source.scheduler:
        raise BundleError(f"{source.name} has no scheduler/scheduler_config.json", "add the model's scheduler folder")
    return source, source.folder


def _prepare(
    request: BuildRequest,
    source: ModelSource,
    store: Reader | None,
    progress: ProgressCallback,
    warn: Callable[[str], None],
) -> _Prepared:
    """Capture the model, choose each kernel's program, and assemble the plan."""
    from ...tuner.capture.model_capture import capture_model

    progress("capture the model", 0.0)
    capture = capture_model(source, request.options, progress=lambda what: progress(what, 0.02))
    tensors = find_pipeline_tensors(capture)
    check_tensors(capture, request.tier)
    progress("tabulate the schedulers", 0.1)
    default, tables = make_tables(source.scheduler, request.samplers, request.max_steps, warn)
    choices = choose_programs(
        capture,
        request.tier,
        store,
        request.device,
        lambda done, total: progress(f"kernel {done} of {total}", 0.15 + 0.35 * done / max(1, total)),
        warn,
        request.borrow,
        request.steps,
    )
    choices, dispatches = limit_dispatches(capture.kernels, choices, request.device)
    if dispatches.longest_s > LONGEST_S:
        warn(
            f"a dispatch may take {duration(dispatches.longest_s)} on a slow GPU, where Windows resets it after 2 s: "
            "its grid has too few workgroups to be divided further"
        )
    layout = layout_shards(capture.stages)
    programs = share_shaders({kernel: choice.program for kernel, choice in choices.items()})
    max_calls = max(run.calls for table in tables.values() for run in table.runs.values())
    assembled = assemble(capture, tensors, programs, layout, max_calls)
    limits = required_limits(assembled.plan, programs.values())
    check_plan(limits, request.tier)
    features = {feature for program in programs.values() for feature in program.needs.features}
    _, _, height, width = tensors.image.shape
    return _Prepared(
        capture,
        ImageInfo(width, height, request.options.batch, request.options.guidance, tensors.latent),
        Requirements(limits, tuple(sorted(features))),
        default,
        tables,
        choices,
        programs,
        layout,
        assembled,
        dispatches,
    )


def _open_weights(capture: Capture, source: ModelSource) -> dict[str, Checkpoint]:
    """Return each stage's checkpoint; raise CaptureError where one does not belong to the captured configuration."""
    from ...tuner.capture.weights.transform import check_weights

    found = {name: source.load_weights(name) for name in capture.stages}
    for name, weights in found.items():
        check_weights(capture.stages[name], weights)
    return found


def _tuned_info(request: BuildRequest, prepared: _Prepared) -> TunedInfo:
    """Count the kernels by where their schedules come from."""
    borrowed = borrowed_kernels(prepared.capture, prepared.choices, request.steps)
    from_records = sum(1 for choice in prepared.choices.values() if choice.record is not None)
    return TunedInfo(
        device=request.device.key if request.device is not None else "",
        software=request.device is not None and request.device.software,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        kernels=len(prepared.choices),
        from_records=from_records,
        from_baseline=len(prepared.choices) - from_records - sum(group.kernels for group in borrowed),
        baseline_time_share=untuned_share(prepared.capture, prepared.choices, request.steps),
        borrowed=borrowed,
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _page_files() -> list[tuple[str, Path]]:
    """Return the page's files by their path in the bundle; raise BundleError where the page has not been built."""
    from ...web.built_pages import app_dir

    root = app_dir()
    files = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*")) if path.is_file()]
    taken = [
        name
        for name, _ in files
        if name in (MANIFEST, PLAN, PROVENANCE, MEASURED) or name.split("/")[0] in ("kernels", "weights")
    ]
    if taken:
        raise BundleError(f"the page's file {taken[0]} would overwrite the bundle's own")
    return files


def _write_weights(
    folder: Path, prepared: _Prepared, weights: Mapping[str, Checkpoint], progress: ProgressCallback
) -> dict[str, FileInfo]:
    """Write the shards, tensor by tensor; return their sizes and hashes by path."""
    from ...tuner.capture.weights.transform import transform_weights

    total = sum(prepared.layout.sizes)

    def report(done: int) -> None:
        progress(f"weights, {size(done)} of {size(total)}", _WEIGHTS_FROM + (0.99 - _WEIGHTS_FROM) * done / total)

    with ShardWriter(folder, prepared.layout, report) as writer:
        for stage in prepared.capture.stages.values():
            writer.write_stage(stage, transform_weights(stage, weights[stage.name]))
    return {
        ShardLayout.file(shard): FileInfo(nbytes, digest)
        for shard, (nbytes, digest) in enumerate(zip(prepared.layout.sizes, writer.digests, strict=True))
    }


def _summary(
    request: BuildRequest, manifest: Manifest, prepared: _Prepared, warnings: list[str], seconds: float
) -> BuildSummary:
    return BuildSummary(
        folder=request.output,
        kernels=manifest.tuned.kernels,
        from_records=manifest.tuned.from_records,
        searched=count_searched(prepared.choices),
        from_baseline=manifest.tuned.from_baseline,
        baseline_time_share=manifest.tuned.baseline_time_share,
        measured_s=measured_seconds(prepared.capture, prepared.choices, request.steps),
        dispatches=sum(len(stage) for stage in prepared.assembled.plan.stages.values()),
        nbytes=sum(info.nbytes for info in manifest.files.values()),
        weight_bytes=sum(prepared.layout.sizes),
        scratch_bytes=prepared.assembled.memory.nbytes,
        limits=manifest.requires.limits,
        features=manifest.requires.features,
        samplers=tuple(manifest.schedulers.tables),
        warnings=tuple(warnings),
        seconds=seconds,
        borrowed=manifest.tuned.borrowed,
        stage_records_s=stage_seconds(prepared.capture, prepared.choices),
        weights=manifest.model.weights,
        longest_dispatch_s=prepared.dispatches.longest_s,
        sliced=prepared.dispatches.sliced,
    )
