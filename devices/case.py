"""A case on a device: the arguments of a kernel, what must come out, and the buffers that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from . import gpu as layer

_CHUNK = 1 << 20


class CaseError(Exception):
    """A case cannot be read, or does not fit its program: the fault of whoever made the job, not of a candidate."""


class Poison:
    """Fills buffers with ones in every bit: NaN as float32 and float16, and no plausible result as an integer."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._source = layer.storage_buffer(gpu, _CHUNK)
        layer.write(gpu, self._source, np.full(_CHUNK, 0xFF, np.uint8))

    def fill(self, buffers: list[Any]) -> None:
        """Queues filling all of each buffer."""
        encoder = self._gpu.create_command_encoder()
        for buffer in buffers:
            for offset in range(0, buffer.size, _CHUNK):
                encoder.copy_buffer_to_buffer(self._source, 0, buffer, offset, min(_CHUNK, buffer.size - offset))
        self._gpu.queue.submit([encoder.finish()])


class Case:
    """The safetensors file of a `MeasureJob`, read once; its inputs stay on the device while candidates come and go."""

    def __init__(self, gpu: Any, path: Path) -> None:
        """Raises CaseError where the file cannot be read."""
        self._gpu = gpu
        self.identity = identify(path)
        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise CaseError(f"the case {path} cannot be read: {error}") from error
        self.arguments = _numbered(tensors, "arg")
        self.expected = _numbered(tensors, "expected")
        self.buffers: dict[int, Any] = {}
        self.dirty: set[int] = set()
        """Inputs that a program may have overwritten since they were uploaded."""

    def sizes(self) -> dict[int, int]:
        """Bytes of each parameter, by index."""
        return {index: array.nbytes for index, array in {**self.expected, **self.arguments}.items()}

    def prepare(self, poison: Poison) -> None:
        """Puts every parameter as a first run must find it: inputs as given, outputs poisoned."""
        sizes = self.sizes()
        for index, nbytes in sizes.items():
            if index not in self.buffers:
                self.buffers[index] = layer.storage_buffer(self._gpu, nbytes)
                self.dirty.add(index)
        for index in sorted(self.dirty & self.arguments.keys()):
            layer.write(self._gpu, self.buffers[index], self.arguments[index])
        poison.fill([self.buffers[index] for index in self.expected if index not in self.arguments])
        self.dirty.clear()

    def output(self, index: int) -> np.ndarray:
        """Output parameter ``index`` as it is on the device now, in the expected shape and dtype."""
        expected = self.expected[index]
        return layer.read(self._gpu, self.buffers[index], expected.nbytes).view(expected.dtype).reshape(expected.shape)

    def release(self) -> None:
        """Frees the device's memory."""
        for buffer in self.buffers.values():
            buffer.destroy()
        self.buffers.clear()


def identify(path: Path) -> tuple[Path, int, int]:
    """What tells one case file from another or an earlier version of itself; raises CaseError if it is not there."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CaseError(f"the case {path} cannot be read: {error}") from error
    return path, stat.st_mtime_ns, stat.st_size


def _numbered(tensors: dict[str, np.ndarray], prefix: str) -> dict[int, np.ndarray]:
    return {
        int(name[len(prefix) :]): np.ascontiguousarray(array)
        for name, array in tensors.items()
        if name.startswith(prefix) and name[len(prefix) :].isdigit()
    }
