"""A bundle's folder is either whole or not there, and nothing else is ever replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from wgtune.build.bundle.atomic_folder import check_target, replace_folder
from wgtune.support.errors import BundleError

BUNDLE = '{"format": 1, "wgtune": "0.1.0", "files": {}}'


def test_the_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "dist"
    with replace_folder(target) as folder:
        (folder / "manifest.json").write_text(BUNDLE)
        assert not target.exists()
    assert (target / "manifest.json").read_text() == BUNDLE
    assert os.listdir(target.parent) == ["dist"]


def test_an_earlier_bundle_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "dist"
    target.mkdir()
    (target / "manifest.json").write_text(BUNDLE)
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), replace_folder(target) as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert sorted(os.listdir(target)) == ["manifest.json", "old"]
    assert os.listdir(tmp_path) == ["dist"]
    with replace_folder(target) as folder:
        (folder / "new").touch()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["dist"]


def test_what_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    work = tmp_path / "thesis"
    work.mkdir()
    (work / "chapter1.txt").write_text("…")
    with pytest.raises(BundleError, match="not a bundle"), replace_folder(work):
        pytest.fail("the block must not run")
    assert os.listdir(work) == ["chapter1.txt"]
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(work)
    for path in (file, link):
        with pytest.raises(BundleError, match="not a folder"):
            check_target(path)
    check_target(tmp_path / "new")


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    target = tmp_path / "dist"
    target.mkdir()
    with replace_folder(target) as folder:
        (folder / "new").touch()
    assert os.listdir(target) == ["new"]


def test_what_a_killed_build_left_behind_is_cleared(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from wgtune.build.bundle.atomic_folder import replace_folder
        with replace_folder(Path({str(tmp_path / "dist")!r})) as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    with replace_folder(tmp_path / "dist"):
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == ["dist"]


def test_a_stop_between_the_two_renames_keeps_the_earlier_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "dist"
    target.mkdir()
    (target / "manifest.json").write_text(BUNDLE)
    rename = Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if ".partial-" in path.name:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replace_folder(target):
        pass
    assert os.listdir(tmp_path) == ["dist"] and os.listdir(target) == ["manifest.json"]


def test_a_bundle_that_a_killed_build_had_moved_away_comes_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    moved = tmp_path / f".dist.replaced-{dead.pid}"
    moved.mkdir()
    (moved / "manifest.json").write_text(BUNDLE)
    with pytest.raises(ValueError), replace_folder(tmp_path / "dist"):
        raise ValueError
    assert os.listdir(tmp_path) == ["dist"] and os.listdir(tmp_path / "dist") == ["manifest.json"]
