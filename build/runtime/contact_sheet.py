"""Many pictures side by side in one file, each over its name: a look at all of them at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .painter import save_png

CONTACT_SHEET = "contact-sheet.png"
"""Its name in the folder of the pictures."""

_THUMBNAIL = 256
_CAPTION = 18
_GAP = 8
_MOST = 400
"""More pictures than that, and none could be made out."""


def write_contact_sheet(pictures: Sequence[Path], output: Path) -> int:
    """Write the first pictures, in the order given, as one PNG file; returns how many it shows.

    Raises UsageError where the file cannot be written; OSError for a picture that cannot be read.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = pictures[:_MOST]
    columns = max(1, math.ceil(math.sqrt(len(shown))))
    rows = max(1, math.ceil(len(shown) / columns))
    cell = (_THUMBNAIL + _GAP, _THUMBNAIL + _CAPTION + _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for index, path in enumerate(shown):
        left, top = _GAP + index % columns * cell[0], _GAP + index // columns * cell[1]
        with Image.open(path) as picture:
            thumbnail = picture.convert("RGB")
            thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
        sheet.paste(thumbnail, (left, top))
        draw.text((left, top + thumbnail.height + 2), path.stem, fill="black", font=font)
    save_png(np.asarray(sheet), output, {})
    return len(shown)
