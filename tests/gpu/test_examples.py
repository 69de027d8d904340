"""The scripts of `examples/` run as their docstrings say, on a small model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import REPOSITORY

import wgtune

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def run(name: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / name, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tuning_then_the_slowest_kernels(demo_folder: Path, tmp_path: Path) -> None:
    told = run("tune_kernels.py", tmp_path, "--model", str(demo_folder), "--kernels", "layer_norm*", "--trials", "1")
    assert " baseline " in told and " ok " in told and "before" in told
    table = run("slowest_kernels.py", tmp_path)
    assert "layer_norm" in table and "latency_us" in table


def test_building_and_drawing(demo_folder: Path, tmp_path: Path) -> None:
    told = run("build_and_draw.py", tmp_path, "--model", str(demo_folder), "--steps", "2")
    assert "wrote dist.png" in told
    assert (tmp_path / "dist.png").stat().st_size > 1000


def test_applying_records_in_tvm(tmp_path: Path) -> None:
    told = run("apply_records_in_tvm.py", tmp_path, "--db", str(tmp_path / "own.db"))
    found = re.search(r"(\d+) of \d+ kernels have a verified schedule on vulkan:llvmpipe", told)
    assert found is not None and int(found[1]) >= 5, "from the shipped release"


def test_every_example_is_run_here_and_listed() -> None:
    source, listed = Path(__file__).read_text("utf-8"), (REPOSITORY / "examples" / "README.md").read_text("utf-8")
    assert len(EXAMPLES) == 4
    for example in EXAMPLES:
        assert f'"{example.name}"' in source and f"({example.name})" in listed


@pytest.mark.parametrize("name", wgtune.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    assert getattr(wgtune, name).__doc__
