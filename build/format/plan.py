"""The plan of a bundle as data: buffers, shaders, and per stage a straight line of dispatches (docs/bundle.md,
"plan.json").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...support.errors import BundleError
from .buffer_sharing import ALIGNMENT

STAGES = ("clip", "schedule", "unet", "guide", "vae", "image")
"""The stages of a plan, in the order in which one image first runs them."""

NAMES = (
    "token_ids",
    "text_embedding",
    "context",
    "history",
    "coefficients",
    "step",
    "timestep",
    "pixels",
)
"""The places that every plan has."""


@dataclass(frozen=True)
class PlanBuffer:
    """One GPU buffer: filled from the file ``shard``, with the 32-bit ``words``, or with zeros."""

    nbytes: int
    usage: Literal["storage", "uniform"] = "storage"
    shard: str = ""
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class BufferRange:
    """``nbytes`` bytes at byte ``offset`` of buffer ``buffer``."""

    buffer: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class PlanShader:
    """A WGSL file, relative to the bundle, and its entry point."""

    file: str
    entry: str


@dataclass(frozen=True)
class PlanDispatch:
    """One launch: binding i of ``bindings`` is ``@group(0) @binding(i)``; ``grid`` in workgroups."""

    shader: int
    bindings: tuple[BufferRange, ...]
    grid: tuple[int, int, int]


@dataclass
class Plan:
    """Everything that a runtime walks."""

    buffers: list[PlanBuffer] = field(default_factory=list)
    names: dict[str, BufferRange] = field(default_factory=dict)
    shaders: list[PlanShader] = field(default_factory=list)
    stages: dict[str, list[PlanDispatch]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {
            "buffers": [_buffer_to_json(b) for b in self.buffers],
            "names": {name: _range_to_json(r) for name, r in self.names.items()},
            "shaders": [{"file": s.file, "entry": s.entry} for s in self.shaders],
            "stages": {
                stage: [
                    {"shader": d.shader, "bindings": [_range_to_json(r) for r in d.bindings], "grid": list(d.grid)}
                    for d in dispatches
                ]
                for stage, dispatches in self.stages.items()
            },
        }

    @staticmethod
    def from_json(data: Any) -> Plan:
        """The inverse of `to_json`; raises BundleError where the data is not a sound plan."""
        try:
            plan = Plan(
                buffers=[
                    PlanBuffer(
                        _count(b["bytes"]), b["usage"], b.get("shard", ""), tuple(map(_count, b.get("words", ())))
                    )
                    for b in data["buffers"]
                ],
                names={str(name): _range(r) for name, r in data["names"].items()},
                shaders=[PlanShader(str(s["file"]), str(s["entry"])) for s in data["shaders"]],
                stages={
                    str(stage): [
                        PlanDispatch(_count(d["shader"]), tuple(map(_range, d["bindings"])), _grid(d["grid"]))
                        for d in dispatches
                    ]
                    for stage, dispatches in data["stages"].items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"plan.json is not a plan: {error!r}", "build the bundle again") from error
        plan.check()
        return plan

    def check(self) -> None:
        """Raise BundleError where an index, a range or a name points at nothing."""
        for stage in STAGES:
            if stage not in self.stages:
                raise _unsound(f"stage {stage!r} is missing")
        for name in NAMES:
            if name not in self.names:
                raise _unsound(f"the name {name!r} is missing")
        for index, buffer in enumerate(self.buffers):
            if buffer.usage not in ("storage", "uniform") or buffer.nbytes <= 0 or buffer.nbytes % 4:
                raise _unsound(f"buffer {index} is {buffer.usage!r} of {buffer.nbytes} bytes")
            if 4 * len(buffer.words) > buffer.nbytes:
                raise _unsound(f"buffer {index} has more words than its {buffer.nbytes} bytes hold")
        for name, place in self.names.items():
            self._check_range(place, f"the name {name!r}")
        for stage, dispatches in self.stages.items():
            for number, dispatch in enumerate(dispatches):
                where = f"dispatch {number} of stage {stage!r}"
                if not 0 <= dispatch.shader < len(self.shaders):
                    raise _unsound(f"{where} uses shader {dispatch.shader} of {len(self.shaders)}")
                for place in dispatch.bindings:
                    self._check_range(place, where)

    def _check_range(self, place: BufferRange, where: str) -> None:
        if not 0 <= place.buffer < len(self.buffers):
            raise _unsound(f"{where} refers to buffer {place.buffer} of {len(self.buffers)}")
        buffer = self.buffers[place.buffer]
        if place.offset % ALIGNMENT or place.nbytes <= 0 or place.offset + place.nbytes > buffer.nbytes:
            raise _unsound(f"{where} refers to {place.nbytes} bytes at {place.offset} of a buffer of {buffer.nbytes}")


def _unsound(what: str) -> BundleError:
    return BundleError(f"plan.json is damaged: {what}", "build the bundle again")


def _buffer_to_json(buffer: PlanBuffer) -> dict[str, Any]:
    data: dict[str, Any] = {"bytes": buffer.nbytes, "usage": buffer.usage}
    if buffer.shard:
        data["shard"] = buffer.shard
    if buffer.words:
        data["words"] = list(buffer.words)
    return data


def _range_to_json(place: BufferRange) -> list[int]:
    return [place.buffer, place.offset, place.nbytes]


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _range(values: Any) -> BufferRange:
    buffer, offset, nbytes = values
    return BufferRange(_count(buffer), _count(offset), _count(nbytes))


def _grid(values: Any) -> tuple[int, int, int]:
    x, y, z = values
    return (_count(x), _count(y), _count(z))
