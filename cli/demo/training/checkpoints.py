"""Checkpoints of a training run, and what is told of its progress."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ....support.console import Report

SECONDS_BETWEEN = 30.0
"""Least time between two checkpoints of a run."""

Settings = dict[str, int]
"""What the content of a file follows from: the seed, and how long this part and those before it are trained."""


@dataclass
class Run:
    """A part of the training that can be interrupted: its file, its length in steps, and when it writes and tells.

    A checkpoint of other ``settings`` does not count. ``state`` maps names to whatever has ``state_dict`` and
    ``load_state_dict``.
    """

    path: Path
    settings: Settings
    steps: int
    state: dict[str, Any]
    report: Report
    _written: float = field(default_factory=time.monotonic)

    def resume(self) -> int:
        """Load the checkpoint where there is one; return the number of steps that are done."""
        kept = load_kept(self.path, self.settings)
        if kept is None:
            return 0
        for name, part in self.state.items():
            part.load_state_dict(kept[name])
        return int(kept["done"])

    def step_done(self, done: int, loss: float) -> None:
        """Tell progress; write a checkpoint after the last step and every ``SECONDS_BETWEEN`` seconds."""
        now = time.monotonic()
        self.report(f"step {done:,} of {self.steps:,}, loss {loss:.4f}", done / self.steps)
        if done == self.steps or now - self._written >= SECONDS_BETWEEN:
            self._write(done)
            self._written = now

    def _write(self, done: int) -> None:
        parts = {name: part.state_dict() for name, part in self.state.items()}
        keep(self.path, self.settings, {"done": done, **parts})


def load_kept(path: Path, settings: Settings) -> dict[str, Any] | None:
    """What ``keep`` wrote with the same settings, or None."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return kept if kept["settings"] == settings else None


def keep(path: Path, settings: Settings, content: dict[str, Any]) -> None:
    """Write the file whole, so that an interruption leaves the earlier one."""
    scratch = path.with_suffix(".part")
    torch.save({"settings": settings, **content}, scratch)
    os.replace(scratch, path)
