"""Weight shards: every weight and constant of a plan, packed into files that each fill one GPU buffer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from ...support.errors import BundleError
from ...tuner.ir import Operand, Stage, TensorSpec
from ..format.file_digest import FileDigest
from ..format.manifest import FileInfo
from ..format.plan import aligned

SHARD_BYTES = 64 << 20
"""Largest shard, unless a single tensor is larger: small enough to show progress while it is fetched and hashed."""

TensorKey = tuple[str, int | str]
"""Stage, and a weight's index or a constant's SHA-256."""


@dataclass(frozen=True)
class StoredTensors:
    """What shards hold of one network for all of a bundle's programs.

    ``used`` are the indices in ``params`` of the weights that any program reads; ``constants`` are by their SHA-256.
    """

    stage: str
    params: list[TensorSpec]
    used: frozenset[int]
    constants: dict[str, np.ndarray]


def stored_tensors(*captured: Mapping[str, Stage]) -> list[StoredTensors]:
    """Return what the shards of several captures of one model hold, network by network.

    Raises:
        ValueError: the captures' weights are not the same.
    """
    stored = []
    for name, first in captured[0].items():
        used: set[int] = set()
        constants: dict[str, np.ndarray] = {}
        for stage in (stages[name] for stages in captured):
            if (stage.params, stage.weight_formats) != (first.params, first.weight_formats):
                raise ValueError(f"the captures of {name} differ in their weights")
            operands = {(o.space, o.index) for call in stage.calls for o in call.operands}
            used |= {index for space, index in operands if space == "param"}
            constants |= {_digest(c): c for i, c in enumerate(stage.constants) if ("constant", i) in operands}
        stored.append(StoredTensors(name, first.params, frozenset(used), constants))
    return stored


def _digest(constant: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(constant).tobytes()).hexdigest()


@dataclass(frozen=True)
class ShardSlot:
    """``nbytes`` bytes at byte ``offset`` of shard ``shard``."""

    shard: int
    offset: int
    nbytes: int


@dataclass
class ShardLayout:
    """Where each tensor lies, and the size of each shard file. Tensors that no call reads are left out."""

    slots: dict[TensorKey, ShardSlot] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def slot(self, stage: Stage, operand: Operand) -> ShardSlot:
        """Return where a weight or constant that a call of ``stage`` reads lies."""
        key = operand.index if operand.space == "param" else _digest(stage.constants[operand.index])
        return self.slots[stage.name, key]

    @staticmethod
    def file(shard: int) -> str:
        """Return the path of a shard inside the bundle."""
        return f"weights/shard-{shard:03d}.bin"


def layout_shards(stored: Iterable[StoredTensors], shard_bytes: int = SHARD_BYTES) -> ShardLayout:
    """Place weights and constants, in order, at 256-byte offsets."""
    layout = ShardLayout()
    end = 0
    for one in stored:
        sizes: list[tuple[TensorKey, int]] = [((one.stage, i), one.params[i].nbytes) for i in sorted(one.used)]
        sizes += [((one.stage, digest), constant.nbytes) for digest, constant in one.constants.items()]
        for key, nbytes in sizes:
            if not layout.sizes or aligned(end) + nbytes > shard_bytes:
                layout.sizes.append(0)
                end = 0
            offset = aligned(end)
            layout.slots[key] = ShardSlot(len(layout.sizes) - 1, offset, nbytes)
            end = offset + nbytes
            # WebGPU writes buffers in units of four bytes.
            layout.sizes[-1] = -(-end // 4) * 4
    return layout


class ShardWriter:
    """Writes and hashes the shards of a layout in order; a context manager.

    ``written`` holds size and digests of each finished shard; it is complete when the context ended without an error.
    ``progress`` receives after each tensor the bytes of the shards that are done.
    """

    def __init__(self, folder: Path, layout: ShardLayout, progress: Callable[[int], None] = lambda done: None) -> None:
        self._folder = folder
        self._layout = layout
        self._progress = progress
        self._shard = -1
        self._position = 0
        self.written: list[FileInfo] = []

    def __enter__(self) -> ShardWriter:
        (self._folder / "weights").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
            if len(self.written) != len(self._layout.sizes):
                raise ValueError(f"{len(self.written)} of {len(self._layout.sizes)} shards were written")
        elif self._shard >= 0:
            self._file.close()

    def write_stage(self, stored: StoredTensors, params: Iterable[np.ndarray]) -> None:
        """Write a network's weights and constants.

        Args:
            stored: those of the next network in the layout's order.
            params: its weights, in the order of ``stored.params``; each is written before the next is asked for.

        Raises:
            BundleError: a weight has another shape or dtype than captured, or is not finite.
        """
        written = 0
        for index, value in enumerate(params):
            written += 1
            if index in stored.used:
                self._write(self._layout.slots[stored.stage, index], _checked(stored, index, value))
            del value  # with its memory, before the next is made
        if written != len(stored.params):
            raise BundleError(f"{stored.stage} has {written} weights, the capture expects {len(stored.params)}")
        for digest, constant in stored.constants.items():
            self._write(self._layout.slots[stored.stage, digest], constant)

    def _write(self, slot: ShardSlot, value: np.ndarray) -> None:
        if slot.shard != self._shard:
            self._finish()
            self._shard = slot.shard
            self._file = open(self._folder / ShardLayout.file(slot.shard), "wb")  # noqa: SIM115
            self._digest = FileDigest()
            self._position = 0
        self._append(b"\0" * (slot.offset - self._position))
        self._append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        self._progress(sum(self._layout.sizes[: self._shard]) + self._position)

    def _append(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._position += len(data)

    def _finish(self) -> None:
        if self._shard < 0:
            return
        self._append(b"\0" * (self._layout.sizes[self._shard] - self._position))
        self._file.close()
        self.written.append(self._digest.info())
        self._shard = -1


def _checked(stored: StoredTensors, index: int, value: np.ndarray) -> np.ndarray:
    spec = stored.params[index]
    if value.shape != spec.shape or value.dtype != np.dtype(spec.dtype):
        raise BundleError(
            f"the weight {spec.name} of {stored.stage} is {value.dtype} {value.shape}, "
            f"the capture expects {spec.dtype} {spec.shape}",
            "the model's configuration and its weights do not belong together",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise BundleError(f"the weight {spec.name} of {stored.stage} holds numbers that are not finite")
    return value
