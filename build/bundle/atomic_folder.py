"""Replaces a folder in one step: the new one is written beside it and renamed at the end."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ...support.errors import BundleError
from ..format.reader import is_bundle


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends, and is deleted when it raises.

    Raises:
        BundleError: ``target`` is neither a bundle nor empty, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(target)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        partial.mkdir()
    except OSError as error:
        raise BundleError(f"cannot write beside {target}: {error.strerror}", "choose another folder with -o") from error
    retired = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        yield partial
        check_target(target)
        if target.exists():
            target.rename(retired)
        partial.rename(target)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {target}: {error}", "is the disk full?") from error
    finally:
        _complete_replacement(target, retired)
        shutil.rmtree(partial, ignore_errors=True)


def check_target(target: Path) -> None:
    """Raise BundleError where ``target`` is neither missing, empty nor a bundle."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BundleError(f"{target} is not a folder", "choose another with -o")
    if target.is_dir() and any(target.iterdir()) and not is_bundle(target):
        raise BundleError(
            f"{target} is not empty and not a bundle, so it is left alone", "choose another folder with -o"
        )


def _complete_replacement(target: Path, retired: Path) -> None:
    """Delete the replaced folder, or restore it where the new one is missing."""
    if retired.exists() and not target.exists():
        retired.rename(target)
    shutil.rmtree(retired, ignore_errors=True)


def _clear_leftovers(target: Path) -> None:
    """Settle what builds that were killed left behind."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(partial|replaced)-(\d+)")
    for path in list(target.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None or psutil.pid_exists(int(match.group(2))):
            continue
        if match.group(1) == "replaced":
            _complete_replacement(target, path)
        else:
            shutil.rmtree(path, ignore_errors=True)
