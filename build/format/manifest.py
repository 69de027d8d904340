"""manifest.json: what a bundle is, what its programs need, and the size and SHA-256 of its files (docs/bundle.md).

The types mirror the document; its JSON Schema and the page's TypeScript types are generated from them (`json_schema`).
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_serializer,
)
from pydantic.dataclasses import dataclass
from pydantic_core import from_json

from ...support.enums import ComputePrecision, WeightPrecision
from ...support.errors import BundleError
from .strict_json import STRICT, Count, not_json, read_document, write_document

FORMAT: Final = 2
"""Version of the bundle format that is written and read here."""

PIECE_BYTES: Final = 4 << 20
"""Bytes of the pieces in which a browser keeps and checks files."""

MOST_STATES: Final = 8
"""States that a sampler's recurrence may have."""

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer/tokenizer.json"

_NON_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def _steps(key: Any) -> int:
    """Return the number that a key of `TableInfo.runs` stands for."""
    if isinstance(key, int):
        return key
    if isinstance(key, str) and re.fullmatch("[1-9][0-9]{0,8}", key):
        return int(key)
    raise ValueError("not a number of steps in decimal")


def _without_non_finite(value: Any) -> Any:
    """Return ``value`` with a text for each number that JSON lacks; diffusers' configurations may hold -Infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return next(text for text, number in _NON_FINITE.items() if repr(number) == repr(value))
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    return [_without_non_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _with_non_finite(value: Any) -> Any:
    """Undo `_without_non_finite`."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _with_non_finite(item) for key, item in value.items()}
    return [_with_non_finite(item) for item in value] if isinstance(value, list) else value


Steps = Annotated[int, BeforeValidator(_steps), WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,8}$"})]
SchedulerConfig = Annotated[dict[str, Any], AfterValidator(_with_non_finite), PlainSerializer(_without_non_finite)]


@dataclass(frozen=True, config=STRICT)
class LoraInfo:
    """A LoRA that is merged into the weights."""

    name: str
    """The file's name."""
    sha256: str
    """Of the file, lower-case hexadecimal."""
    scale: float
    """By which it counts."""


@dataclass(frozen=True, config=STRICT)
class ModelInfo:
    """The model, by its name."""

    name: str
    weights: WeightPrecision
    """How the weights lie in the shards and in GPU memory."""
    loras: tuple[LoraInfo, ...] = ()
    """What is merged into the weights, in order."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "loras" or value}


@dataclass(frozen=True, config=STRICT)
class ImageInfo:
    """What one run of the plan draws."""

    width: Count
    """Pixels."""
    height: Count
    """Pixels."""
    batch: Count
    """Images per run."""
    guidance: bool
    """Whether the UNet sees negative prompts too."""
    latent: tuple[Count, Count, Count]
    """Channels, height and width of one latent."""


@dataclass(frozen=True, config=STRICT)
class Requirements:
    """What a WebGPU device must offer."""

    limits: dict[str, Count]
    """The least limits that suffice, by WebGPU's names."""
    features: tuple[str, ...]
    """WebGPU's names of features."""


@dataclass(frozen=True, config=STRICT)
class BorrowedInfo:
    """Kernels that run schedules of another device, or of another program, not verified where the bundle is for."""

    match: str
    """How near that device is: a `Match`."""
    device: str
    """Key of that device."""
    kernels: Count
    time_share: float | None
    """Estimated share of an image's time that these kernels take; null where nothing was measured."""


@dataclass(frozen=True, config=STRICT)
class TunedInfo:
    """Where the kernels' schedules come from."""

    device: str
    """Key of the device whose records were used; empty for none."""
    software: bool
    """Whether that device runs on the CPU."""
    created: str
    """When the bundle was built: UTC in ISO 8601."""
    kernels: Count
    from_records: Count
    """Kernels that run a schedule measured and verified on the device."""
    improved: Count
    """Of these, those whose schedule a search found; for the others the untuned one won."""
    from_baseline: Count
    """Kernels that have no record and run untuned."""
    baseline_time_share: float | None
    """Estimated share of an image's time that the untuned kernels take; null where nothing was measured."""
    borrowed: tuple[BorrowedInfo, ...]


@dataclass(frozen=True, config=STRICT)
class DispatchesInfo:
    """How long single dispatches take, of which Windows allows about two seconds."""

    longest_s: float
    """Estimated seconds of the longest on a slow integrated GPU, or by the device's records where that is longer."""
    sliced: Count
    """Kernels whose dispatches run in slices of their grids, because they would take longer."""


@dataclass(frozen=True, config=STRICT)
class ProgramInfo:
    """One way to draw: a plan over the bundle's weights, what it needs, and where its kernels come from."""

    plan: str
    """File of the plan, which also names the program."""
    compute: ComputePrecision
    """Which floats kernels pass on to each other."""
    capture: str
    """Key of the capture that the plan was made of."""
    requires: Requirements
    tuned: TunedInfo
    dispatches: DispatchesInfo


@dataclass(frozen=True, config=STRICT)
class PromptInfo:
    """Token ids per prompt, and the ids that frame and fill them."""

    length: Count
    bos: Count
    eos: Count
    pad: Count


@dataclass(frozen=True, config=STRICT)
class RunInfo:
    """Where one run's table lies in its file."""

    offset: Count
    """float32 elements from the file's start."""
    calls: Count
    """Calls of the UNet."""
    states: Annotated[Count, Field(ge=1, le=MOST_STATES)]
    """Latents that the sampler remembers from one call to the next, that of the call itself included."""


@dataclass(frozen=True, config=STRICT)
class TableInfo:
    """The file of one scheduler's tables."""

    file: str
    label: str
    """The name that people know the sampler by."""
    class_name: Annotated[str, Field(alias="class")]
    """Name of the diffusers class."""
    noise: Literal["stream", "brownian"]
    """What rows draw: the next numbers of the seed's stream, or increments of a Brownian motion."""
    runs: dict[Steps, RunInfo]
    """By number of inference steps."""


@dataclass(frozen=True, config=STRICT)
class SchedulersInfo:
    """The schedulers that the bundle offers."""

    default: str
    """Name of the table that was made from the model's own scheduler."""
    config: SchedulerConfig
    """The model's scheduler_config.json."""
    tables: dict[str, TableInfo]


@dataclass(frozen=True, config=STRICT)
class FileInfo:
    """Size and hashes of a file, and which programs use it."""

    nbytes: Annotated[Count, Field(alias="bytes")]
    sha256: str
    """Lower-case hexadecimal."""
    pieces: tuple[str, ...] = ()
    """SHA-256 of each piece of 4 MiB, the last one shorter, of a file that is longer than one piece."""
    plans: tuple[str, ...] = ()
    """The programs that use the file, by their plans; none for one that all use."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in ("pieces", "plans") or value}


@dataclass(frozen=True, config=STRICT)
class Manifest:
    """The whole of manifest.json."""

    format: Literal[2]
    wgtune: str
    """Version of wgtune that built the bundle."""
    model: ModelInfo
    image: ImageInfo
    tier: str
    programs: Annotated[tuple[ProgramInfo, ...], Field(min_length=1)]
    """A runtime takes the first one that the device can run."""
    prompt: PromptInfo
    schedulers: SchedulersInfo
    files: dict[str, FileInfo]
    """Every file but the manifest and the page, by its path in the bundle."""
    documents: tuple[str, ...] = ()
    """Those of the files that only tell about the bundle: no runtime reads them."""

    def to_json(self) -> bytes:
        """Return the content of manifest.json."""
        return write_document(ADAPTER, self)

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """Parse manifest.json, the inverse of `to_json`.

        Raises:
            BundleError: the data is not a manifest, is damaged, or has another format version.
        """
        try:
            header = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise not_json(MANIFEST, error) from None
        if not isinstance(header, dict) or "format" not in header:
            raise BundleError("manifest.json is not a bundle's manifest", "build the bundle again")
        version = header["format"]
        if version != FORMAT or isinstance(version, bool):
            raise BundleError(
                f"the bundle has format {version!r}, this wgtune reads format {FORMAT}",
                "build it again with this version, or use the version that built it",
            )
        manifest = read_document(ADAPTER, data, f"{MANIFEST} is damaged")
        manifest._check()
        return manifest

    def files_of(self, program: ProgramInfo) -> dict[str, FileInfo]:
        """Return the files that a runtime reads to run ``program``, by their paths."""
        return {
            name: info
            for name, info in self.files.items()
            if name not in self.documents and (not info.plans or program.plan in info.plans)
        }

    def _check(self) -> None:
        if self.schedulers.default not in self.schedulers.tables:
            raise _damaged(f"the default scheduler {self.schedulers.default!r} has no table")
        plans = [program.plan for program in self.programs]
        for number, plan in enumerate(plans):
            if plan not in self.files:
                raise _damaged(f"programs[{number}].plan: {plan!r} is not listed in files")
            if plan in plans[:number]:
                raise _damaged(f"programs[{number}].plan: {plan!r} is the plan of another program, too")
        for name, info in self.files.items():
            if not set(info.plans) <= set(plans):
                raise _damaged(f"files.{name}.plans names a plan that no program has")
            count = -(-info.nbytes // PIECE_BYTES) if info.nbytes > PIECE_BYTES else 0
            if len(info.pieces) != count:
                raise _damaged(f"files.{name}.pieces has {len(info.pieces)} digests, not {count}")
            # A bundle may come from anywhere: its file names must not lead out of its folder.
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise _damaged(f"{name!r} is not a path inside the bundle")


ADAPTER = TypeAdapter(Manifest)


def _damaged(what: str) -> BundleError:
    return BundleError(f"{MANIFEST} is damaged: {what}", "build the bundle again")
