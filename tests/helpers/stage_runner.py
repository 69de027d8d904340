"""Runs a captured stage on the CPU: every kernel compiled for LLVM, called in order on byte arrays."""

from __future__ import annotations

import math

import numpy as np
import tvm

from wgtune.tuner.ir import Capture, Operand, Stage


class StageRunner:
    """Compiles ``stage``'s kernels once; calling it with inputs and params in the stage's order gives the outputs."""

    def __init__(self, capture: Capture, stage: str) -> None:
        self.stage: Stage = capture.stages[stage]
        self._kernels = {key: capture.kernels[key] for key in self.stage.calls_per_kernel()}
        names = {key: f"k{i}" for i, key in enumerate(self._kernels)}
        functions = {names[key]: k.func.with_attr("global_symbol", names[key]) for key, k in self._kernels.items()}
        # Compiling is what takes the time, so it is done without LLVM's optimisations.
        library = tvm.compile(tvm.IRModule(functions), target={"kind": "llvm", "opt-level": 0})
        self._functions = {key: library[name] for key, name in names.items()}

    def __call__(self, inputs: list[np.ndarray], params: list[np.ndarray]) -> list[np.ndarray]:
        stage = self.stage
        spaces = {
            "input": [_bytes(array) for array in inputs],
            "param": [_bytes(array) for array in params],
            "constant": [_bytes(array) for array in stage.constants],
            # NaN everywhere, so that whatever a kernel leaves unwritten is seen.
            "temp": [_poisoned(count) for count in stage.temps],
            "output": [_poisoned(spec.nbytes) for spec in stage.outputs],
        }
        for call in stage.calls:
            kernel = self._kernels[call.kernel]
            arguments = []
            for operand, spec in zip(call.operands, kernel.params, strict=True):
                assert operand.nbytes == spec.nbytes, (kernel.name, operand, spec)
                assert operand.offset % 256 == 0, (kernel.name, operand)
                arguments.append(self._tensor(spaces, operand, spec.shape, spec.dtype))
            self._functions[call.kernel](*arguments)
        return [
            space.view(spec.dtype).reshape(spec.shape)
            for space, spec in zip(spaces["output"], stage.outputs, strict=True)
        ]

    @staticmethod
    def _tensor(spaces: dict, operand: Operand, shape: tuple[int, ...], dtype: str) -> object:
        whole = spaces[operand.space][operand.index]
        part = whole[operand.offset : operand.offset + operand.nbytes]
        assert part.nbytes == math.prod(shape) * np.dtype(dtype).itemsize
        return tvm.runtime.from_dlpack(part.view(dtype).reshape(shape))


def _bytes(array: np.ndarray) -> np.ndarray:
    return _aligned(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _poisoned(count: int) -> np.ndarray:
    return _aligned(np.full(count, 0xFF, np.uint8))


def _aligned(data: np.ndarray) -> np.ndarray:
    """A copy at an address that the kernels may assume to be aligned to 64 bytes."""
    room = np.empty(data.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    result = room[start : start + data.nbytes]
    result[:] = data
    return result
