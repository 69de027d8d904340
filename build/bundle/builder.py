"""From a model and a database to a bundle: one call that does every step, and writes nothing until all can be
written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from ...database.reader import Reader
from ...devices.limits import Tier, find_tier
from ...support.enums import Match
from ...support.errors import BundleError, UsageError
from ...tuner.capture.sources import ModelSource, resolve_model
from ...tuner.ir import Capture, CaptureOptions
from ..format.manifest import (
    MANIFEST,
    PLAN,
    BorrowedInfo,
    FileInfo,
    ImageInfo,
    Manifest,
    PromptInfo,
    TableInfo,
    TunedInfo,
    dump,
)
from ..format.sampler_tables import Sampler, SamplerTable, make_tables, pack_table
from .assembly import Assembled, PipelineTensors, assemble, find_pipeline_tensors
from .atomic_folder import check_target, replace_folder
from .device_limits import check_plan, check_tensors, required_limits
from .program_choice import (
    ProgramChoice,
    borrowed_kernels,
    choose_programs,
    count_searched,
    measured_seconds,
    untuned_share,
)
from .tokenizer import tokenizer_files
from .weights import ShardLayout, ShardWriter, layout_shards

ProgressCallback = Callable[[str, float], None]
"""Receives what is being done, and how much of the whole is, from 0 to 1."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    ``model`` is what `resolve_model` understands and has weights. ``device_key`` names the device whose records are
    used, "" for baselines only. ``max_steps`` bounds the inference steps that the bundle offers; ``steps`` is the
    usual number, for which times and shares are told. ``page`` puts the page into the bundle.
    ``borrow`` is how far a kernel without a record of the device may go for another's schedule.
    """

    model: str
    output: Path
    device_key: str = ""
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

    ``from_records`` kernels run a schedule verified on the device, of which ``searched`` were found by search (for
    the others the baseline won). Those in ``borrowed`` run schedules that another device verified and this one did
    not. ``from_baseline`` run their untuned baseline, unmeasured, and take ``baseline_time_share`` of an image's time
    (an estimate; None where nothing was measured). ``measured_s`` is what the records add up to for one batch of
    images. ``scratch_bytes`` is the memory of intermediates, ``weight_bytes`` that of weights. ``warnings`` are
    sentences for the user.
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


def _silent(what: str, done: float) -> None:
    pass


def build_bundle(request: BuildRequest, store: Reader | None, progress: ProgressCallback = _silent) -> BuildSummary:
    """Build ``request.output``; an earlier bundle there is replaced only when the new one is whole.

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
    software = _known_device(store, request.device_key)
    source, model_folder = _weighted_source(request.model)
    parts = _make_parts(request, source, store, progress, warnings.append)
    files, prompt = tokenizer_files(model_folder / "tokenizer", source.token_length)
    infos = {}
    for sampler, table in parts.tables.items():
        data, offsets = pack_table(table)
        infos[sampler.value] = _table_info(sampler, table, offsets)
        files[infos[sampler.value].file] = data
    files |= {name: text.encode("utf-8") for name, text in parts.assembled.sources.items()}
    files[PLAN] = dump(parts.assembled.plan.to_json())
    manifest = _manifest(request, source, software, parts, prompt, infos)
    with replace_folder(request.output) as folder:
        for name, data in files.items():
            _write(folder / name, data)
            manifest.files[name] = FileInfo(len(data), hashlib.sha256(data).hexdigest())
        _write_weights(folder, parts, source, manifest, progress)
        for name, origin in page:
            _write(folder / name, origin.read_bytes())
        # Last, so that a folder with a manifest is whole.
        _write(folder / MANIFEST, dump(manifest.to_json()))
    progress("done", 1.0)
    return _summary(request, manifest, parts, warnings, time.perf_counter() - started)


@dataclass
class _Parts:
    """What becomes of the model before anything is written."""

    capture: Capture
    interface: PipelineTensors
    default: Sampler
    tables: dict[Sampler, SamplerTable]
    choices: dict[str, ProgramChoice]
    layout: ShardLayout
    assembled: Assembled
    limits: dict[str, int]
    features: tuple[str, ...]


def _weighted_source(model: str) -> tuple[ModelSource, Path]:
    """The model and its folder; BundleError where it has no weights or no scheduler."""
    source = resolve_model(model)
    if not source.has_weights or source.folder is None:
        raise BundleError(
            f"{source.name} is a configuration without weights, and a bundle needs them",
            "give a diffusers folder with weights, such as one made by save_pretrained",
        )
    if not source.scheduler:
        raise BundleError(f"{source.name} has no scheduler/scheduler_config.json", "add the model's scheduler folder")
    return source, source.folder


def _make_parts(
    request: BuildRequest,
    source: ModelSource,
    store: Reader | None,
    progress: ProgressCallback,
    warn: Callable[[str], None],
) -> _Parts:
    from ...tuner.capture.model_capture import capture_model

    progress("capture the model", 0.0)
    capture = capture_model(source, request.options, progress=lambda what: progress(what, 0.02))
    interface = find_pipeline_tensors(capture)
    check_tensors(capture, request.tier)
    progress("tabulate the schedulers", 0.1)
    default, tables = make_tables(source.scheduler, request.samplers, request.max_steps, warn)
    choices = choose_programs(
        capture,
        request.tier,
        store,
        request.device_key,
        lambda done, total: progress(f"kernel {done} of {total}", 0.15 + 0.35 * done / max(1, total)),
        warn,
        request.borrow,
    )
    layout = layout_shards(capture.stages)
    programs = {kernel: choice.program for kernel, choice in choices.items()}
    max_calls = max(run.calls for table in tables.values() for run in table.runs.values())
    assembled = assemble(capture, programs, layout, max_calls)
    limits = required_limits(assembled.plan, programs.values())
    check_plan(limits, request.tier)
    features = tuple(sorted({feature for program in programs.values() for feature in program.needs.features}))
    return _Parts(capture, interface, default, tables, choices, layout, assembled, limits, features)


def _manifest(
    request: BuildRequest,
    source: ModelSource,
    software: bool,
    parts: _Parts,
    prompt: PromptInfo,
    tables: dict[str, TableInfo],
) -> Manifest:
    _, _, height, width = parts.interface.image.shape
    borrowed = borrowed_kernels(parts.capture, parts.choices, request.steps)
    from_records = sum(1 for choice in parts.choices.values() if choice.record is not None)
    return Manifest(
        wgtune=metadata.version("wgtune"),
        model=source.name,
        capture=parts.capture.key,
        image=ImageInfo(width, height, request.options.batch, request.options.guidance, parts.interface.latent),
        tier=request.tier.name,
        limits=parts.limits,
        features=parts.features,
        tuned=TunedInfo(
            device=request.device_key,
            software=software,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kernels=len(parts.choices),
            from_records=from_records,
            from_baseline=len(parts.choices) - from_records - sum(lender.kernels for lender in borrowed),
            baseline_time_share=untuned_share(parts.capture, parts.choices, request.steps),
            borrowed=borrowed,
        ),
        prompt=prompt,
        default_scheduler=parts.default.value,
        scheduler_config=source.scheduler,
        tables=tables,
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _known_device(store: Reader | None, device_key: str) -> bool:
    """Whether the device is a software one; raises UsageError where the database has never seen it."""
    if not device_key:
        return False
    known = store.devices() if store is not None else []
    for device in known:
        if device.key == device_key:
            return device.software
    listed = ", ".join(device.key for device in known) or "none yet; `wgtune tune` adds one"
    raise UsageError(f"the database has no device {device_key!r}", f"devices with records: {listed}")


def _page_files() -> list[tuple[str, Path]]:
    """The page's files by their path in the bundle; BundleError where the page has not been built."""
    from ...web.built_pages import app_dir

    root = app_dir()
    files = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*")) if path.is_file()]
    taken = [name for name, _ in files if name in (MANIFEST, PLAN) or name.split("/")[0] in ("kernels", "weights")]
    if taken:
        raise BundleError(f"the page's file {taken[0]} would overwrite the bundle's own")
    return files


def _table_info(sampler: Sampler, table: SamplerTable, offsets: dict[int, int]) -> TableInfo:
    return TableInfo(
        file=f"schedulers/{sampler.value}.bin",
        class_name=sampler.class_name,
        runs={steps: (offsets[steps], run.calls) for steps, run in table.runs.items()},
    )


def _write_weights(
    folder: Path, parts: _Parts, source: ModelSource, manifest: Manifest, progress: ProgressCallback
) -> None:
    """Write the shards stage by stage, so that one stage's weights are in memory at a time."""
    from ...tuner.capture.lowering import transform_weights

    stages = parts.capture.stages
    with ShardWriter(folder, parts.layout) as writer:
        for number, stage in enumerate(stages.values()):
            progress(f"weights of {stage.name}", 0.55 + 0.4 * number / len(stages))
            weights = source.load_weights(stage.name)
            params = transform_weights(stage, weights)
            del weights
            writer.write_stage(stage, params)
            del params
    for shard, (size, digest) in enumerate(zip(parts.layout.sizes, writer.digests, strict=True)):
        manifest.files[ShardLayout.file(shard)] = FileInfo(size, digest)


def _summary(
    request: BuildRequest, manifest: Manifest, parts: _Parts, warnings: list[str], seconds: float
) -> BuildSummary:
    return BuildSummary(
        folder=request.output,
        kernels=manifest.tuned.kernels,
        from_records=manifest.tuned.from_records,
        searched=count_searched(parts.choices),
        from_baseline=manifest.tuned.from_baseline,
        baseline_time_share=manifest.tuned.baseline_time_share,
        measured_s=measured_seconds(parts.capture, parts.choices, request.steps),
        dispatches=sum(len(stage) for stage in parts.assembled.plan.stages.values()),
        nbytes=sum(info.nbytes for info in manifest.files.values()),
        weight_bytes=sum(parts.layout.sizes),
        scratch_bytes=parts.assembled.memory.nbytes,
        limits=manifest.limits,
        features=manifest.features,
        samplers=tuple(manifest.tables),
        warnings=tuple(warnings),
        seconds=seconds,
        borrowed=manifest.tuned.borrowed,
    )
