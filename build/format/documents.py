"""provenance.json and measured.json: what people ask about a bundle, and no runtime reads (docs/bundle.md)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from .reader import Bundle
from .strict_json import STRICT, Count, read_document, write_document

PROVENANCE = "provenance.json"
MEASURED = "measured.json"

Seconds = Annotated[float, Field(ge=0)]
T = TypeVar("T")


@dataclass(frozen=True, config=STRICT)
class SourceSession:
    """The tuning session of a record."""

    device: str
    """Key of the device that was tuned."""
    driver: str
    """The driver's description of itself; empty where it has none."""
    toolchain: dict[str, str]
    """Versions by package."""
    started: str
    """UTC in ISO 8601."""
    database: str
    """Name of the release or the database that the record was read from, without its folder or server."""


@dataclass(frozen=True, config=STRICT)
class SourceTrial:
    """The trial that measured and verified a schedule."""

    session: str
    """Uid of its session, which is the same in every database that holds a copy."""
    number: Count
    """Its number in that session, from 1."""
    kind: str
    """Where its schedule came from: a `TrialKind`."""
    schedule: str
    """SHA-256 of the schedule's trace."""
    program: str
    """Digest of the program that was measured."""
    latency_s: Seconds
    """Median, in seconds."""
    ended: str
    """UTC in ISO 8601."""


@dataclass(frozen=True, config=STRICT)
class KernelSource:
    """One kernel of the bundle, its program, and where that comes from.

    - ``record``: ``trial`` measured and verified this program on the device that the bundle is built for
    - ``borrowed``: the schedule of ``trial``; ``match`` tells of which device, as in `manifest.BorrowedInfo`
    - ``baseline``: the untuned schedule, which nothing measured
    """

    name: str
    workload: str
    """SHA-256 of the kernel's canonical text."""
    program: str
    """Digest of the program as it is measured: before shaders that differ only in constants become one."""
    shaders: tuple[str, ...]
    """The program's WGSL files, in the order in which they are first dispatched."""
    source: Literal["record", "borrowed", "baseline"]
    match: str | None = None
    trial: SourceTrial | None = None


@dataclass(frozen=True, config=STRICT)
class ProvenanceDocument:
    """The whole of provenance.json. Glue shaders are hand-written, and not in it."""

    sessions: dict[str, SourceSession]
    """By uid."""
    programs: dict[str, tuple[KernelSource, ...]]
    """By the program's plan: the kernels in the order of their first launch."""

    def to_json(self) -> bytes:
        """Return the content of provenance.json."""
        return write_document(_PROVENANCE, self)


@dataclass(frozen=True, config=STRICT)
class StageTime:
    """Medians over several rounds, in seconds, of one part of a picture: the text encoder, a step, or the decoder."""

    stage: str
    """The network."""
    dispatches: Count
    """Dispatches of one run."""
    run_s: Seconds
    """One run while a picture is drawn, by the wall clock: from its submission until it is done."""
    alone_s: Seconds
    """Sum of its dispatches, each repeated by itself with warm caches, as the tuner measures kernels."""
    gpu_s: Seconds | None
    """One run by the GPU's timestamps; null where it has none."""
    launch_s: Seconds
    """What so many launches cost on the device by themselves; part of all the others."""

    @property
    def ratio(self) -> float:
        """The sum of the dispatches alone over the whole: 1 where nothing is lost between them."""
        return self.alone_s / self.run_s


@dataclass(frozen=True, config=STRICT)
class ProgramTimes:
    """Times of a program's stages."""

    stages: tuple[StageTime, ...]
    records_s: dict[str, Seconds]
    """Sum of the kernels' records for one run of a stage, in seconds, where all of its kernels have one."""


@dataclass(frozen=True, config=STRICT)
class MeasuredDocument:
    """The whole of measured.json: the stages of the bundle's programs as a device ran them."""

    device: str
    """Key of the device."""
    driver: str
    measured: str
    """When: UTC in ISO 8601."""
    programs: dict[str, ProgramTimes]
    """By the program's plan, as far as the device can run them."""

    def to_json(self) -> bytes:
        """Return the content of measured.json."""
        return write_document(_MEASURED, self)


_PROVENANCE = TypeAdapter(ProvenanceDocument)
_MEASURED = TypeAdapter(MeasuredDocument)


def read_provenance(bundle: Bundle) -> ProvenanceDocument | None:
    """Return the bundle's provenance.json, None where it has none; raises BundleError where it is damaged."""
    return _read(bundle, PROVENANCE, _PROVENANCE)


def read_measured(bundle: Bundle) -> MeasuredDocument | None:
    """Return the bundle's measured.json, None where it has none; raises BundleError where it is damaged."""
    return _read(bundle, MEASURED, _MEASURED)


def _read(bundle: Bundle, name: str, adapter: TypeAdapter[T]) -> T | None:
    if name not in bundle.manifest.documents:
        return None
    return read_document(adapter, bundle.read(name), f"{name} is damaged")
