"""A case on a device: the buffers that hold its parameters, inputs uploaded and outputs poisoned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..measure.case_file import read_case
from . import gpu as layer

_CHUNK = 1 << 20


class Poison:
    """Fills buffers with ones in every bit: NaN as float32 and float16, and no plausible result as an integer."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._source = layer.storage_buffer(gpu, _CHUNK)
        layer.write(gpu, self._source, np.full(_CHUNK, 0xFF, np.uint8))

    def fill(self, buffers: list[Any]) -> None:
        """Queue filling all of each buffer."""
        encoder = self._gpu.create_command_encoder()
        for buffer in buffers:
            for offset in range(0, buffer.size, _CHUNK):
                encoder.copy_buffer_to_buffer(self._source, 0, buffer, offset, min(_CHUNK, buffer.size - offset))
        self._gpu.queue.submit([encoder.finish()])


class DeviceCase:
    """The arrays of a case file, and a buffer for each parameter; the inputs stay on the device between jobs."""

    def __init__(self, gpu: Any, path: Path) -> None:
        """Read the file; raises CaseError where that fails."""
        self._gpu = gpu
        self.arrays = read_case(path)
        self.buffers: dict[int, Any] = {}
        self.dirty: set[int] = set()
        """Inputs that a program may have overwritten since they were uploaded."""

    def prepare(self, poison: Poison) -> None:
        """Queue setting every parameter as a first run must find it: inputs as given, outputs poisoned."""
        for index, nbytes in self.arrays.sizes().items():
            if index not in self.buffers:
                self.buffers[index] = layer.storage_buffer(self._gpu, nbytes)
                self.dirty.add(index)
        for index in sorted(self.dirty & self.arrays.arguments.keys()):
            layer.write(self._gpu, self.buffers[index], self.arrays.arguments[index])
        poison.fill([self.buffers[index] for index in self.arrays.expected if index not in self.arrays.arguments])
        self.dirty.clear()

    def output(self, index: int) -> np.ndarray:
        """Return output parameter ``index`` as it is on the device now, in the expected shape and dtype."""
        expected = self.arrays.expected[index]
        return layer.read(self._gpu, self.buffers[index], expected.nbytes).view(expected.dtype).reshape(expected.shape)

    def release(self) -> None:
        """Free the device's memory."""
        for buffer in self.buffers.values():
            buffer.destroy()
        self.buffers.clear()
