"""Import of TVM without PyTorch, for the processes of wgtune's own.

TVM imports PyTorch where it is installed, so as to pass its tensors to TVM. wgtune passes none, and mostly needs TVM
alone: PyTorch is 1.3 s of CPU time and 200 MB in every process. A program that imports wgtune as a library keeps TVM's
own behaviour.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import cast

_PACKAGES = ("tvm_ffi", "tvm")


def import_tvm_without_torch() -> None:
    """Make a later ``import tvm`` leave out PyTorch, which can still be imported afterwards."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds TVM's two packages; all other modules are left to the finders after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PACKAGES or "torch" in sys.modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _WithoutTorch(spec.loader.name, spec.loader.path)
        return spec


class _WithoutTorch(SourceFileLoader):
    """Runs a package's code while ``import torch`` raises ImportError, which TVM expects where there is no PyTorch."""

    def exec_module(self, module: ModuleType) -> None:
        modules = cast("dict[str, ModuleType | None]", sys.modules)
        if "torch" in modules:
            super().exec_module(module)
            return
        modules["torch"] = None
        try:
            super().exec_module(module)
        finally:
            del modules["torch"]
