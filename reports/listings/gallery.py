"""What became of a file of prompts, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...support.formatting import duration
from ..tables import Column, print_json, print_rows

if TYPE_CHECKING:
    from ...build.runtime.batch import Gallery
    from ...build.runtime.prompts import BadLine, Drawing

_COLUMNS = [
    Column("device", "device"),
    Column("pictures", "pictures", "right"),
    Column("each", "each", "right", duration),
    Column("faults", "faults", "right"),
]


def print_gallery(
    gallery: Gallery, bad: Sequence[BadLine], sheet: Path | None, *, json: bool, console: Console
) -> None:
    """Prints how many pictures each device drew, which were there already, and every line that came to nothing."""
    if json:
        print_json(_plain(gallery, bad, sheet), console)
        return
    rows = [_row(name, gallery) for name in dict.fromkeys([*(d.device for d in gallery.drawn), *dict(gallery.faults)])]
    if rows:
        print_rows(rows, _COLUMNS, json=False, console=console)
    lines = [
        f"pictures   {len(gallery.drawn)} drawn, {len(gallery.kept)} there already, in {gallery.folder}; "
        f"{duration(gallery.elapsed_s)}"
    ]
    if sheet is not None:
        lines.append(f"all        {sheet}")
    lines += [f"undrawn    line {u.drawing.line}: {u.reason}" for u in gallery.undrawn]
    lines += [f"left out   line {line.line}: {line.reason}" for line in bad]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _row(name: str, gallery: Gallery) -> dict[str, Any]:
    seconds = [drawn.seconds for drawn in gallery.drawn if drawn.device == name]
    return {
        "device": name,
        "pictures": len(seconds),
        "each": sum(seconds) / len(seconds) if seconds else None,
        "faults": sum(1 for device, _ in gallery.faults if device == name),
    }


def _plain(gallery: Gallery, bad: Sequence[BadLine], sheet: Path | None) -> dict[str, Any]:
    def picture(drawing: Drawing, **more: Any) -> dict[str, Any]:
        return {
            "line": drawing.line,
            "prompt": drawing.prompt,
            "seed": drawing.seed,
            "path": str(drawing.path),
            **more,
        }

    drawn = sorted(gallery.drawn, key=lambda d: d.drawing.line)
    return {
        "folder": str(gallery.folder),
        "drawn": [picture(d.drawing, device=d.device, seconds=d.seconds) for d in drawn],
        "kept": [picture(drawing) for drawing in gallery.kept],
        "undrawn": [picture(u.drawing, reason=u.reason) for u in gallery.undrawn],
        "bad_lines": [{"line": line.line, "reason": line.reason} for line in bad],
        "faults": [{"device": device, "what": what} for device, what in gallery.faults],
        "contact_sheet": str(sheet) if sheet else None,
        "elapsed_s": gallery.elapsed_s,
    }
