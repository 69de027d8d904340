"""Reads off a picture what it shows: the colour, the shape and the place of each object, and the time of day.

Written for the pictures of `scenes`, drawn by its program or by a model that was trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .scenes import COLOURS, SHAPES, SIZE, TRUNK, WINDOW, Scene, silhouette

_CONTRAST = 45
"""Least difference from the background in a channel of 0 to 255, for a pixel of an object."""
_EDGE = 0.45
"""The share of an object's contrast that its edge has; a tree's trunk at night has half of a crown's."""
_SMALLEST = 100
"""Least area of an object in pixels; what is smaller is dirt."""
_DIRT = 25
"""Least area of dirt that counts."""
_SIDE = 32
_LIKENESS = 0.75
"""Least intersection over union with a shape's silhouette."""
_NEAR = 22
"""Greatest distance in pixels, across and down, between where a caption puts a group and where it is."""
_DARK = 110
"""Mean brightness of the background between night and day."""


@dataclass(frozen=True)
class Found:
    """One object of a picture; ``shape`` is None where it looks like none, ``x`` and ``y`` are its box's middle."""

    colour: str
    shape: str | None
    likeness: float
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """The objects of a picture, the time of day, and the number of spots too small for an object."""

    objects: tuple[Found, ...]
    time: str
    dirt: int


def read(picture: np.ndarray) -> Reading:
    """Read a picture of shape (SIZE, SIZE, 3), uint8."""
    from scipy import ndimage

    pixels = picture.astype(np.float32)
    background = _background(pixels)
    contrast = np.abs(pixels - background).max(axis=2)
    labels, _ = ndimage.label(contrast > _CONTRAST)
    objects, dirt = [], 0
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        own = labels[box] == index
        if own.sum() < _SMALLEST:
            dirt += int(own.sum() >= _DIRT)
            continue
        # A blurred edge lies where the contrast has fallen to about half, however strong the object's is.
        own &= contrast[box] > _EDGE * np.percentile(contrast[box][own], 75)
        own = ndimage.binary_fill_holes(own)
        shape, likeness = _shape(own)
        y, x = ((side.start + side.stop - 1) / 2 for side in box)
        objects.append(Found(_colour(pixels[box], own), shape, likeness, x, y))
    time = "at night" if background.mean() < _DARK else "by day"
    return Reading(tuple(objects), time, dirt)


def mistakes(scene: Scene, picture: np.ndarray) -> list[str]:
    """What of the caption the picture does not show, in words; nothing where all of it is right.

    Every object must be near where the caption puts it: numbers, places and what is above or beside what follow.
    """
    reading = read(picture)
    wrong = [f"{reading.time}"] if scene.time not in (None, reading.time) else []
    free = list(reading.objects)
    for group in scene.groups:
        for x, y in group.centres:
            near = [
                f
                for f in free
                if f.shape == group.shape
                and group.colour in (None, f.colour)
                and max(abs(f.x - x), abs(f.y - y)) <= _NEAR
            ]
            if near:
                free.remove(min(near, key=lambda f: max(abs(f.x - x), abs(f.y - y))))
            else:
                wrong.append(f"no {group.colour or ''} {group.shape} at ({x:.0f}, {y:.0f})".replace("  ", " "))
    wrong += [f"{f.colour} {f.shape or 'blot'} at ({f.x:.0f}, {f.y:.0f})" for f in free]
    if reading.dirt:
        wrong.append(f"{reading.dirt} small spots")
    return wrong


def _background(pixels: np.ndarray) -> np.ndarray:
    """The background as a line from top to bottom in each channel, fitted to the picture's outermost pixels."""
    edge = np.concatenate([pixels[:, :3], pixels[:, -3:]], axis=1)
    rows = np.median(edge, axis=1)
    rows[:3] = np.median(pixels[:3].reshape(-1, 3), axis=0)
    rows[-3:] = np.median(pixels[-3:].reshape(-1, 3), axis=0)
    heights = np.arange(SIZE)
    lines = []
    for channel in rows.T:
        line = np.polynomial.Polynomial.fit(heights, channel, 1)
        keep = np.abs(channel - line(heights)) <= np.abs(channel - line(heights)).mean() * 2 + 1
        lines.append(np.polynomial.Polynomial.fit(heights[keep], channel[keep], 1)(heights))
    return np.stack(lines, axis=1)[:, None, :]


def _colour(pixels: np.ndarray, own: np.ndarray) -> str:
    """The colour that most of the object's pixels are nearest to; a trunk's and a window's do not count."""
    names = [*COLOURS, "trunk", "window"]
    palette = np.array([*COLOURS.values(), TRUNK, WINDOW], np.float32)
    nearest = np.linalg.norm(pixels[own][:, None] - palette, axis=2).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(names))[: len(COLOURS)]
    return names[int(counts.argmax())]


def _shape(own: np.ndarray) -> tuple[str | None, float]:
    from PIL import Image

    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    own = own[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = np.asarray(Image.fromarray(own.astype(np.uint8) * 255).resize((_SIDE, _SIDE), Image.Resampling.BOX)) > 127
    best = max(SHAPES, key=lambda shape: _overlap(box, _outline(shape)))
    likeness = _overlap(box, _outline(best))
    return (best if likeness >= _LIKENESS else None), likeness


@cache
def _outline(shape: str) -> np.ndarray:
    return silhouette(shape, _SIDE)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())
