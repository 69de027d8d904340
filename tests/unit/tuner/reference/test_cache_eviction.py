"""Files that can be made again go when there are too many of them, the longest unused first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tuning_kernels import matmul, softmax

from wgtune.support import paths
from wgtune.support.errors import UsageError
from wgtune.support.paths import evict, used
from wgtune.tuner.reference.reference import make_case

HOUR = 3600.0


def files(folder: Path, *ages_h: float, nbytes: int = 100) -> list[Path]:
    made = []
    for age in ages_h:
        path = folder / f"{age}"
        path.write_bytes(bytes(nbytes))
        os.utime(path, (time.time() - age * HOUR,) * 2)
        made.append(path)
    return made


def test_the_longest_unused_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    old, older, oldest = files(tmp_path, 2, 3, 4)
    assert evict(tmp_path, 200) == 100
    assert [path.exists() for path in (old, older, oldest)] == [True, True, False]
    assert evict(tmp_path, 200) == 0


def test_what_is_in_use_stays_whatever_it_takes(tmp_path: Path) -> None:
    (recent, old) = files(tmp_path, 0.5, 9)
    used(old)
    assert evict(tmp_path, 0) == 0 and recent.exists() and old.exists()


def test_folders_and_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (target,) = files(tmp_path / "folder", 9)
    (tmp_path / "link").symlink_to(target)
    assert evict(tmp_path, 0, spared_s=0) == 0 and target.exists() and (tmp_path / "link").is_symlink()


def test_references_stay_within_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE_GIB", "0")
    first = make_case(matmul(), folder=tmp_path).path
    os.utime(first, (0, 0))
    second = make_case(softmax(), folder=tmp_path).path
    assert not first.exists() and second.exists(), "the one that was just made is in use"
    os.utime(second, (0, 0))
    make_case(softmax(), folder=tmp_path)
    assert second.stat().st_mtime > time.time() - HOUR


def test_the_limit_is_20_gib_or_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WGTUNE_CACHE_GIB", raising=False)
    assert paths.cache_limit() == 20 << 30
    monkeypatch.setenv("WGTUNE_CACHE_GIB", "0.5")
    assert paths.cache_limit() == 1 << 29
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("WGTUNE_CACHE_GIB", wrong)
        with pytest.raises(UsageError, match="WGTUNE_CACHE_GIB"):
            paths.cache_limit()
