"""Result of drawing a file of prompts, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...support.formatting import duration
from ..tables import Column, print_json, print_rows

if TYPE_CHECKING:
    from ...build.runtime.batch import BatchResult
    from ...build.runtime.prompts import BadLine, ImageRequest

_COLUMNS = [
    Column("device", "device"),
    Column("pictures", "pictures", "right"),
    Column("each", "each", "right", duration),
    Column("faults", "faults", "right"),
]


def print_batch(
    result: BatchResult, bad: Sequence[BadLine], sheet: Path | None, *, json: bool, console: Console
) -> None:
    """Print how many pictures each device drew, which were there already, and every line that came to nothing."""
    if json:
        print_json(_plain(result, bad, sheet), console)
        return
    rows = [_row(name, result) for name in dict.fromkeys([*(d.device for d in result.completed), *dict(result.faults)])]
    if rows:
        print_rows(rows, _COLUMNS, json=False, console=console)
    lines = [
        f"pictures   {len(result.completed)} drawn, {len(result.kept)} there already, in {result.folder}; "
        f"{duration(result.elapsed_s)}"
    ]
    if sheet is not None:
        lines.append(f"all        {sheet}")
    lines += [f"undrawn    line {failed.request.line}: {failed.reason}" for failed in result.failed]
    lines += [f"left out   line {line.line}: {line.reason}" for line in bad]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _row(name: str, result: BatchResult) -> dict[str, Any]:
    seconds = [image.seconds for image in result.completed if image.device == name]
    return {
        "device": name,
        "pictures": len(seconds),
        "each": sum(seconds) / len(seconds) if seconds else None,
        "faults": sum(1 for device, _ in result.faults if device == name),
    }


def _plain(result: BatchResult, bad: Sequence[BadLine], sheet: Path | None) -> dict[str, Any]:
    def picture(request: ImageRequest, **more: Any) -> dict[str, Any]:
        return {
            "line": request.line,
            "prompt": request.prompt,
            "seed": request.seed,
            "path": str(request.path),
            **more,
        }

    drawn = sorted(result.completed, key=lambda d: d.request.line)
    return {
        "folder": str(result.folder),
        "drawn": [picture(d.request, device=d.device, seconds=d.seconds) for d in drawn],
        "kept": [picture(request) for request in result.kept],
        "undrawn": [picture(failed.request, reason=failed.reason) for failed in result.failed],
        "bad_lines": [{"line": line.line, "reason": line.reason} for line in bad],
        "faults": [{"device": device, "what": what} for device, what in result.faults],
        "contact_sheet": str(sheet) if sheet else None,
        "elapsed_s": result.elapsed_s,
    }
