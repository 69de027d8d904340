import subprocess
import sys

# What a session's process imports to tune kernels whose capture is in the cache.
_SESSION = """
import importlib.util, sys
from wgtune.support.tvm_import import import_tvm_without_torch
import_tvm_without_torch()
import wgtune.tuner.session.session
import tvm
assert "torch" not in sys.modules
assert importlib.util.find_spec("torch") is not None  # PyTorch can be imported from now on
import wgtune.tuner.capture.lowering, torch
assert torch.zeros(2).tolist() == [0, 0]
"""

_TORCH_FIRST = """
import importlib.machinery, importlib.util, sys
from wgtune.support.tvm_import import import_tvm_without_torch
sys.modules["torch"] = type(sys)("torch")  # stands for PyTorch that is imported already
import_tvm_without_torch()
assert type(importlib.util.find_spec("tvm").loader) is importlib.machinery.SourceFileLoader
"""


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_session_starts_without_torch_which_can_be_imported_later() -> None:
    _run(_SESSION)


def test_tvm_is_imported_as_usual_where_torch_is_already() -> None:
    _run(_TORCH_FIRST)
