"""A kept capture is served as long as the code that made it is the same, wherever that code is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wgtune
from wgtune.tuner.capture.code_digest import import_closure

PACKAGE = Path(wgtune.__file__).parent

KEY = """
from wgtune.tuner.capture.sources import ModelSource
from wgtune.tuner.capture.stage_cache import stage_key
from wgtune.tuner.ir import CaptureOptions

print(stage_key(ModelSource("tiny", None, {"unet": {}}), CaptureOptions(), "unet"))
"""

CAPTURE = """
import sys
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import ModelSource
from wgtune.tuner.ir import CaptureOptions

TEXT = {
    "architectures": ["CLIPTextModel"],
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 11,
}
VAE = {"block_out_channels": (8,), "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
VAE.update(norm_num_groups=4, sample_size=8)
source = ModelSource("tiny", None, {"clip": TEXT, "vae": VAE}, token_length=11)
capture_model(source, CaptureOptions())
print(*(name for name in sys.modules if name.partition(".")[0] == "wgtune"))
"""


def run(code: str, parent: Path, **environment: str) -> str:
    """What ``code`` prints in a process that imports wgtune from the folder ``parent``."""
    environment = {**os.environ, **environment, "PYTHONPATH": str(parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=parent, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of wgtune in another folder."""
    parent = tmp_path_factory.mktemp("elsewhere")
    for folder in ("database", "devices", "support", "tuner"):
        shutil.copytree(
            PACKAGE / folder,
            parent / "wgtune" / folder,
            ignore=lambda _, names: [name for name in names if "." in name and not name.endswith(".py")],
        )
    shutil.copy(PACKAGE / "__init__.py", parent / "wgtune")
    return parent


def key_after_an_edit(copy: Path, module: str) -> str:
    path = copy / "wgtune" / module
    source = path.read_text(encoding="utf-8")
    path.write_text(source + "\n# edited\n", encoding="utf-8")
    try:
        return run(KEY, copy)
    finally:
        path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    [
        "database/tvm/kernel_identity.py",
        "tuner/capture/exporter.py",
        "tuner/capture/rewrites/graph.py",
        "tuner/capture/sincos.py",
        "tuner/capture/sources.py",
        "tuner/capture/stage_cache.py",
        "tuner/ir.py",
    ],
)
def test_an_edit_of_what_captures_changes_the_key(copy: Path, module: str) -> None:
    assert key_after_an_edit(copy, module) != run(KEY, copy)


@pytest.mark.parametrize("module", ["support/console.py", "tuner/capture/kernel_table.py", "tuner/session/session.py"])
def test_an_edit_of_what_does_not_capture_keeps_the_key(copy: Path, module: str) -> None:
    assert key_after_an_edit(copy, module) == run(KEY, copy)


def test_the_key_is_the_same_wherever_wgtune_is_installed(copy: Path) -> None:
    assert run(KEY, copy) == run(KEY, PACKAGE.parent)


def test_every_module_that_a_capture_imports_counts(tmp_path: Path) -> None:
    imported = set(run(CAPTURE, PACKAGE.parent, WGTUNE_CACHE=str(tmp_path)).split())
    assert "wgtune.tuner.capture.sincos" in imported
    closure = import_closure("wgtune.tuner.capture.model_capture")
    packages = {name for name in imported if PACKAGE.joinpath(*name.split(".")[1:], "__init__.py").is_file()}
    # A capture takes the definition of attention from this package, whose __init__ imports the rules beside it.
    rules = {name for name in imported if name.startswith("wgtune.tuner.schedule_rules.")}
    assert "wgtune.tuner.schedule_rules.attention.definition" in closure
    assert imported - packages - rules <= closure.keys()


def test_imports_are_followed_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "a/__init__.py": "",
        "a/entry.py": "from . import near\nfrom ..b import far\nfrom ..b.package import name\nimport wgtune.b.plain",
        "a/near.py": "def f():\n  try:\n    from .lazy import x\n  except ImportError:\n    from ..b import handler",
        "a/lazy.py": "import numpy\nfrom a import b",
        "b/__init__.py": "",
        "b/far.py": "if TYPE_CHECKING:\n    from .types import T\n",
        "b/handler.py": "match 1:\n    case 1:\n        from . import case\n    case _:\n        pass",
        "b/case.py": "from .entry import circle\nfrom ..a.entry import circle",
        "b/package/__init__.py": "from .inside import name",
        "b/package/inside.py": "",
        "b/plain.py": "if typing.TYPE_CHECKING:\n    from .types import T\n",
        "b/types.py": "",
        "b/unused.py": "",
    }
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("wgtune.tuner.capture.code_digest._ROOT", tmp_path)
    assert sorted(import_closure("wgtune.a.entry")) == [
        "wgtune.a.entry",
        "wgtune.a.lazy",
        "wgtune.a.near",
        "wgtune.b.case",
        "wgtune.b.far",
        "wgtune.b.handler",
        "wgtune.b.package",
        "wgtune.b.package.inside",
        "wgtune.b.plain",
    ]
