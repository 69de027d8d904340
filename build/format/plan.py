"""A plan: buffers, shaders, and per stage a straight line of dispatches (docs/bundle.md, "plan.json").

The types mirror the document; its JSON Schema and the page's TypeScript types are generated from them (`json_schema`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, model_serializer
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema

from ...support.errors import BundleError
from .strict_json import STRICT, Count, read_document, write_document

PLAN = "plan.json"
"""File of the plan of a bundle's program with floats between kernels."""

STAGES = ("clip", "schedule", "unet", "guide", "vae", "image")
"""The stages of a plan, in the order in which one image first runs them."""

NAMES = (
    "token_ids",
    "text_embedding",
    "context",
    "state",
    "coefficients",
    "step",
    "timestep",
    "pixels",
)
"""The named ranges that every plan has."""

ALIGNMENT = 256
"""Bytes of which offsets are multiples: WebGPU's default ``minStorageBufferOffsetAlignment``."""


def aligned(nbytes: int) -> int:
    """Return ``nbytes`` rounded up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class BufferRange(NamedTuple):
    """Byte offset and byte size of a range of buffer ``buffer``; the offset is a multiple of 256."""

    buffer: int
    offset: int
    nbytes: int

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """In JSON a list of three numbers."""
        offset = Annotated[Count, Field(multiple_of=ALIGNMENT)]
        numbers = tuple[Count, offset, Annotated[Count, Field(ge=1)]]
        return core_schema.no_info_after_validator_function(cls._make, handler.generate_schema(numbers))


@dataclass(frozen=True, config=STRICT)
class PlanBuffer:
    """One GPU buffer: filled from the file ``shard``, with the 32-bit ``words``, or with zeros."""

    nbytes: Annotated[Count, Field(alias="bytes", ge=4, multiple_of=4)]
    usage: Literal["storage", "uniform"]
    shard: Annotated[str, Field(min_length=1)] = ""
    """File whose bytes fill the buffer from its start."""
    words: tuple[Annotated[int, Field(ge=0, le=2**32 - 1)], ...] = ()
    """32-bit unsigned integers that fill the buffer from its start."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value not in ("", (), [])}


@dataclass(frozen=True, config=STRICT)
class PlanShader:
    """A WGSL file, relative to the bundle, and its entry point."""

    file: str
    entry: str


@dataclass(frozen=True, config=STRICT)
class PlanDispatch:
    """One dispatch of a shader, which is an index into the plan's ``shaders``."""

    shader: Count
    bindings: tuple[BufferRange, ...]
    """Element i is ``@group(0) @binding(i)``."""
    grid: tuple[Count, Count, Count]
    """Workgroups in x, y and z."""


@dataclass(config=STRICT)
class Plan:
    """The whole of plan.json: everything that a runtime walks."""

    buffers: list[PlanBuffer]
    names: Annotated[dict[str, BufferRange], Field(json_schema_extra={"required": [*NAMES]})]
    """The ranges through which a runtime talks to the plan."""
    shaders: list[PlanShader]
    stages: Annotated[dict[str, list[PlanDispatch]], Field(json_schema_extra={"required": [*STAGES]})]

    def to_json(self) -> bytes:
        """Return the content of plan.json."""
        return write_document(ADAPTER, self)

    @staticmethod
    def from_json(data: bytes, file: str = PLAN) -> Plan:
        """Parse the plan in ``file``, the inverse of `to_json`; raises BundleError where it is not a sound one."""
        plan = read_document(ADAPTER, data, f"{file} is not a plan")
        try:
            plan.check()
        except ValueError as error:
            raise BundleError(f"{file} is damaged: {error}", "build the bundle again") from None
        return plan

    def check(self) -> None:
        """Raise ValueError where a stage or a name is missing, or an index or a range points at nothing."""
        for stage in STAGES:
            if stage not in self.stages:
                raise ValueError(f"stage {stage!r} is missing")
        for name in NAMES:
            if name not in self.names:
                raise ValueError(f"the name {name!r} is missing")
        for index, buffer in enumerate(self.buffers):
            if 4 * len(buffer.words) > buffer.nbytes:
                raise ValueError(f"buffer {index} has more words than its {buffer.nbytes} bytes hold")
        for name, place in self.names.items():
            self._check_range(place, f"the name {name!r}")
        for stage, dispatches in self.stages.items():
            for number, dispatch in enumerate(dispatches):
                where = f"dispatch {number} of stage {stage!r}"
                if dispatch.shader >= len(self.shaders):
                    raise ValueError(f"{where} uses shader {dispatch.shader} of {len(self.shaders)}")
                for place in dispatch.bindings:
                    self._check_range(place, where)

    def _check_range(self, place: BufferRange, where: str) -> None:
        if place.buffer >= len(self.buffers):
            raise ValueError(f"{where} refers to buffer {place.buffer} of {len(self.buffers)}")
        buffer = self.buffers[place.buffer]
        if place.offset % ALIGNMENT or place.offset + place.nbytes > buffer.nbytes:
            raise ValueError(f"{where} refers to {place.nbytes} bytes at {place.offset} of a buffer of {buffer.nbytes}")


ADAPTER = TypeAdapter(Plan)
