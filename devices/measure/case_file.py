"""The file of a case: the arguments of a kernel, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open


class CaseError(Exception):
    """A case cannot be read, or does not fit its program: the fault of whoever made the job, not of a candidate."""


@dataclass(frozen=True)
class CaseArrays:
    """Inputs and expected outputs by parameter index."""

    arguments: dict[int, np.ndarray]
    expected: dict[int, np.ndarray]

    def sizes(self) -> dict[int, int]:
        """Bytes of each parameter, by index."""
        return {index: array.nbytes for index, array in {**self.expected, **self.arguments}.items()}


def read_case(path: Path) -> CaseArrays:
    """The arrays of a `MeasureJob`'s safetensors file; raises CaseError where it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CaseError(f"the case {path} cannot be read: {error}") from error
    return CaseArrays(_numbered(tensors, "arg"), _numbered(tensors, "expected"))


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
