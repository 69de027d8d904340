"""The case of a job: a safetensors file with the inputs of a kernel and the expected outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open


class CaseError(Exception):
    """A case file cannot be read, or does not fit its program. Not the fault of the program."""


@dataclass(frozen=True)
class CaseArrays:
    """Inputs and expected outputs by parameter index. ``identity`` is what `identify` returned before reading."""

    identity: tuple[Path, int, int]
    arguments: dict[int, np.ndarray]
    expected: dict[int, np.ndarray]

    def sizes(self) -> dict[int, int]:
        """Return the bytes of each parameter, by index."""
        return {index: array.nbytes for index, array in {**self.expected, **self.arguments}.items()}


def read_case(path: Path) -> CaseArrays:
    """Return the arrays of a case file; raises CaseError where it cannot be read."""
    identity = identify(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CaseError(f"the case {path} cannot be read: {error}") from error
    return CaseArrays(identity, _numbered(tensors, "arg"), _numbered(tensors, "expected"))


def identify(path: Path) -> tuple[Path, int, int]:
    """Return path, modification time and size, which change when the file does; raises CaseError if it is missing."""
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
