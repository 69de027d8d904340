"""Writes thumbnails of many images with their names into one file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .painter import save_png

CONTACT_SHEET = "contact-sheet.png"
"""File name of the contact sheet in the images' folder."""

_THUMBNAIL = 256
_CAPTION = 18
_GAP = 8
_MOST = 400
"""Most images on a sheet: more would be too small to see."""


def write_contact_sheet(pictures: Sequence[Path], output: Path) -> int:
    """Write the first images, in the given order, as one PNG file; return how many it shows.

    Raises:
        UsageError: the file cannot be written.
        OSError: an image cannot be read.
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
