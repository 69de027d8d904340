"""Builds a bundle from a model and a database; writes nothing before every part is known to fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ...database.reader import Reader
from ...database.schema.records import DeviceInfo
from ...devices.limits import Tier, find_tier
from ...support.enums import ComputePrecision, Match, WeightPrecision
from ...support.errors import BundleError, CaptureError, UsageError
from ...support.formatting import size
from ...tuner.capture.model_files.lora import Lora, Merged
from ...tuner.capture.sources import ModelSource, read_loras, resolve_model, with_words
from ...tuner.ir import Capture, CaptureOptions
from ..format.documents import MEASURED, PROVENANCE
from ..format.file_digest import file_info
from ..format.manifest import (
    FORMAT,
    MANIFEST,
    MOST_STATES,
    FileInfo,
    ImageInfo,
    LoraInfo,
    Manifest,
    ModelInfo,
    SchedulersInfo,
    TableInfo,
)
from ..format.sampler_tables import USUAL_SAMPLERS, AnySampler, SamplerTable, pack_table
from ..samplers.tables import make_tables
from .assembly import ShaderFiles, find_pipeline_tensors
from .atomic_folder import check_target, replace_folder
from .device_limits import check_tensors
from .documents import make_provenance
from .planned_program import (
    ChosenKernels,
    PlannedProgram,
    ProgramSummary,
    Selection,
    choose_kernels,
    plan_program,
    summarise,
)
from .tokenizer import tokenizer_files
from .weights import ShardLayout, ShardWriter, StoredTensors, layout_shards, stored_tensors

if TYPE_CHECKING:
    from ...tuner.capture.weights.transform import Weights

ProgressCallback = Callable[[str, float], None]
"""Receives the current step and the share of the whole that is done, from 0 to 1."""

_TABLES = "schedulers/tables.bin"
"""File of all samplers' tables."""

_WEIGHTS_FROM = 0.5
"""Share of a build that is done when its weights are written."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    ``model`` and ``config`` are what `resolve_model` understands, with weights; ``loras``, each ``FILE[:SCALE]``, are
    merged into them, and ``textual_inversions`` are files of words for prompts. ``device`` is the device whose records
    are used, None for baselines only. ``compute`` are the precisions of which the bundle has a program each, by default
    the one in ``options``; a device runs the half floats' where it can. ``max_steps`` is the largest number of
    inference steps that the bundle offers; ``steps`` is the usual number, for which times and shares are estimated.
    ``page`` puts the page into the bundle. ``borrow`` is the farthest device whose schedule a kernel without a record
    may use.
    """

    model: str
    output: Path
    device: DeviceInfo | None = None
    options: CaptureOptions = field(default_factory=CaptureOptions)
    compute: tuple[ComputePrecision, ...] = ()
    tier: Tier = field(default_factory=lambda: find_tier("default"))
    samplers: tuple[AnySampler, ...] = USUAL_SAMPLERS
    max_steps: int = 50
    steps: int = 20
    page: bool = True
    borrow: Match = Match.PORTABLE
    config: str | None = None
    loras: tuple[str, ...] = ()
    textual_inversions: tuple[str, ...] = ()

    @property
    def precisions(self) -> tuple[ComputePrecision, ...]:
        """Return the precisions of which the bundle has a program each, the one that needs the least first."""
        asked = self.compute or (self.options.compute,)
        return tuple(compute for compute in ComputePrecision if compute in asked)


@dataclass(frozen=True)
class BuildSummary:
    """What was built: ``weight_bytes`` of ``weights``, and its programs in the manifest's order.

    ``nbytes`` are those of all files. ``warnings`` are sentences for the user.
    """

    folder: Path
    nbytes: int
    weight_bytes: int
    weights: WeightPrecision
    samplers: tuple[str, ...]
    programs: tuple[ProgramSummary, ...]
    warnings: tuple[str, ...]
    seconds: float


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
    source, model_folder = _weighted_source(request.model, request.config)
    source = with_words(source, request.textual_inversions)
    loras = read_loras(source, request.loras)
    if source.left_out:
        warnings.append(f"the bundle leaves out the model's {', '.join(source.left_out)}")
    prepared = _prepare(request, source, store, progress, warnings.append)
    weights = _open_weights(prepared.captures[0], source, loras, warnings.append)
    files, prompt = tokenizer_files(
        model_folder / "tokenizer",
        source.token_length,
        {word.token: len(word.vectors) for word in source.words},
        source.configs.get("clip", {}).get("vocab_size"),
    )
    files[_TABLES], tables = _pack_tables(prepared.tables)
    files[PROVENANCE] = make_provenance(prepared.programs, store).to_json()
    of_programs = _program_files(prepared.programs)
    files |= {name: data for name, (data, _) in of_programs.items()}
    infos = {name: file_info(data, of_programs[name][1] if name in of_programs else ()) for name, data in files.items()}
    with replace_folder(request.output) as folder:
        for name, data in files.items():
            _write(folder / name, data)
        infos |= _write_weights(folder, prepared, weights, progress)
        for name, origin in page:
            _write(folder / name, origin.read_bytes())
        manifest = Manifest(
            format=FORMAT,
            wgtune=metadata.version("wgtune"),
            model=ModelInfo(
                source.name,
                request.options.weights,
                tuple(LoraInfo(lora.name, lora.sha256, lora.scale) for lora in loras),
            ),
            image=prepared.image,
            tier=request.tier.name,
            programs=tuple(program.info for program in prepared.programs),
            prompt=prompt,
            schedulers=SchedulersInfo(prepared.default.value, source.scheduler, tables),
            files=dict(sorted(infos.items())),
            documents=(PROVENANCE,),
        )
        # Last, so that a folder with a manifest is whole.
        _write(folder / MANIFEST, manifest.to_json())
    progress("done", 1.0)
    return _summary(request, manifest, prepared, warnings, time.perf_counter() - started)


def _pack_tables(tables: Mapping[AnySampler, SamplerTable]) -> tuple[bytes, dict[str, TableInfo]]:
    """Return the file of all tables, one request for a visitor, and what the manifest says of each."""
    data, infos = b"", {}
    for sampler, table in tables.items():
        packed, runs = pack_table(table, len(data) // 4)
        data += packed
        infos[sampler.value] = TableInfo(_TABLES, table.label, sampler.class_name, table.noise, runs)
    return data, infos


@dataclass
class _Prepared:
    """What is made of the model before anything is written; ``programs`` are in the manifest's order."""

    captures: list[Capture]
    image: ImageInfo
    default: AnySampler
    tables: dict[AnySampler, SamplerTable]
    stored: list[StoredTensors]
    layout: ShardLayout
    programs: list[PlannedProgram]


def _weighted_source(model: str, config: str | None) -> tuple[ModelSource, Path]:
    """Return the model and its folder; raise BundleError where it has no weights or no scheduler."""
    source = resolve_model(model, config)
    if source.file is not None and source.folder is None:
        raise BundleError(
            f"{source.file} holds no tokenizer, and the hub that has its model's is out of reach",
            "give a diffusers folder with the model's configuration and tokenizer with --config",
        )
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
    """Capture the model for each precision, choose the kernels' programs, and assemble the plans."""
    from ...tuner.capture.model_capture import capture_model

    progress("capture the model", 0.0)
    captures = [
        capture_model(source, replace(request.options, compute=compute), progress=lambda what: progress(what, 0.02))
        for compute in request.precisions
    ]
    tensors = [find_pipeline_tensors(capture) for capture in captures]
    for capture in captures:
        check_tensors(capture, request.tier)
    progress("tabulate the schedulers", 0.1)
    default, tables = make_tables(source.scheduler, request.samplers, request.max_steps, warn)
    selection = Selection(request.tier, store, request.device, request.borrow, request.steps)
    chosen: list[ChosenKernels] = []
    for capture in captures:
        before = len(chosen)

        def report(done: int, total: int, before: int = before) -> None:
            share = (before + done / max(1, total)) / len(captures)
            progress(f"kernel {done} of {total}", 0.15 + (_WEIGHTS_FROM - 0.15) * share)

        chosen.append(choose_kernels(capture, selection, report, warn))
    stored = stored_tensors(*(capture.stages for capture in captures))
    layout = layout_shards(stored)
    files = ShaderFiles()
    programs = [
        plan_program(kernels, io, selection, layout, MOST_STATES, files)
        for kernels, io in zip(chosen, tensors, strict=True)
    ]
    _warn_of_untuned(programs, request.model, warn)
    _, _, height, width = tensors[0].image.shape
    return _Prepared(
        captures,
        ImageInfo(width, height, request.options.batch, request.options.guidance, tensors[0].latent),
        default,
        tables,
        stored,
        layout,
        # A runtime takes the first that it can run: the one that needs a feature comes before the one that does not.
        programs[::-1],
    )


def _warn_of_untuned(programs: Sequence[PlannedProgram], model: str, warn: Callable[[str], None]) -> None:
    """Warn where visitors whose GPU can run the last of ``programs`` run less tuned kernels than others do."""
    measured = [program.info.tuned.kernels - program.info.tuned.from_baseline for program in programs]
    if measured[-1] < measured[0]:
        last = programs[-1].info
        warn(
            f"visitors whose GPU has {' and '.join(last.requires.features)} run the program for {last.compute.value}, "
            f"in which {measured[-1]} of {last.tuned.kernels} kernels are tuned, and {measured[0]} of "
            f"{programs[0].info.tuned.kernels} are in the one for {programs[0].info.compute.value} "
            f"(`wgtune tune --model {model} --compute {last.compute.value}`)"
        )


def _program_files(programs: Sequence[PlannedProgram]) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    """Return the content of plans and shaders by path, each with the plans that use it; none where all do."""
    files: dict[str, bytes] = {}
    users: dict[str, list[str]] = {}
    for program in programs:
        own = {name: text.encode("utf-8") for name, text in program.assembled.sources.items()}
        own[program.info.plan] = program.assembled.plan.to_json()
        files |= own
        for name in own:
            users.setdefault(name, []).append(program.info.plan)
    return {
        name: (data, tuple(users[name]) if len(users[name]) < len(programs) else ()) for name, data in files.items()
    }


def _open_weights(
    capture: Capture, source: ModelSource, loras: Sequence[Lora], warn: Callable[[str], None]
) -> dict[str, Weights]:
    """Return each stage's checkpoint with ``loras`` merged into it.

    Raises CaptureError where a checkpoint does not belong to the captured configuration, or no layer of a LoRA does.
    """
    from ...tuner.capture.weights.transform import check_weights

    loaded = {name: source.load_weights(name) for name in capture.stages}
    for lora in loras:
        layers = sum(map(len, lora.layers.values()))
        if unmatched := lora.unmatched(loaded):
            listed = ", ".join(unmatched[:3]) + (f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else "")
            said = f"{lora.name}: {len(unmatched)} of {layers} layers are of no weight in {source.name}: {listed}"
            if len(unmatched) == layers:
                raise CaptureError(said, "give a LoRA that was trained for this kind of model")
            warn(said)
    if loras:
        names = ", ".join(f"{lora.name} ({lora.scale:g})" for lora in loras)
        warn(f"merged {names} into the weights: the kernels are the model's own, and need no tuning again")
    merged = {name: Merged(weights, loras, name) if loras else weights for name, weights in loaded.items()}
    for name, weights in merged.items():
        check_weights(capture.stages[name], weights)
    return {**merged}


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
        if name in (MANIFEST, PROVENANCE, MEASURED)
        or name.startswith("plan")
        or name.split("/")[0] in ("kernels", "weights")
    ]
    if taken:
        raise BundleError(f"the page's file {taken[0]} would overwrite the bundle's own")
    return files


def _write_weights(
    folder: Path, prepared: _Prepared, weights: Mapping[str, Weights], progress: ProgressCallback
) -> dict[str, FileInfo]:
    """Write the shards, tensor by tensor; return their sizes and hashes by path."""
    from ...tuner.capture.weights.transform import transform_weights

    total = sum(prepared.layout.sizes)

    def report(done: int) -> None:
        progress(f"weights, {size(done)} of {size(total)}", _WEIGHTS_FROM + (0.99 - _WEIGHTS_FROM) * done / total)

    with ShardWriter(folder, prepared.layout, report) as writer:
        for stored in prepared.stored:
            stage = prepared.captures[0].stages[stored.stage]
            writer.write_stage(stored, transform_weights(stage, weights[stage.name]))
    return {ShardLayout.file(shard): info for shard, info in enumerate(writer.written)}


def _summary(
    request: BuildRequest, manifest: Manifest, prepared: _Prepared, warnings: list[str], seconds: float
) -> BuildSummary:
    return BuildSummary(
        folder=request.output,
        nbytes=sum(info.nbytes for info in manifest.files.values()),
        weight_bytes=sum(prepared.layout.sizes),
        weights=manifest.model.weights,
        samplers=tuple(manifest.schedulers.tables),
        programs=tuple(summarise(program, request.steps) for program in prepared.programs),
        warnings=tuple(warnings),
        seconds=seconds,
    )
