"""The pictures that the demo model is trained on: coloured shapes in named numbers and places, drawn by a program.

A scene is one group of equal shapes, or two, one above or beside the other, by day or at night. What a caption leaves
open (a colour, the time of day) is drawn at random, so that pictures of one prompt differ by their seed.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
"""Width and height of a picture in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (250, 220, 45),
    "green": (40, 165, 70),
    "blue": (45, 95, 225),
    "purple": (150, 55, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "house", "tree")
NUMBERS = ("one", "two", "three")
TRUNK = (145, 95, 55)
"""The colour of every tree's trunk; a tree's own colour is that of its crown."""
WINDOW = (245, 240, 215)
"""The colour of every house's window."""

ALONE = {
    "": (64, 64),
    "in the middle": (64, 64),
    "at the top": (64, 32),
    "at the bottom": (64, 96),
    "on the left": (32, 64),
    "on the right": (96, 64),
}
"""Places of one group, by its centre (x, y) in pixels; a group on the left or right is a column, any other a row."""
CORNERS = {
    "in the top left corner": (32, 32),
    "in the top right corner": (96, 32),
    "in the bottom left corner": (32, 96),
    "in the bottom right corner": (96, 96),
}
"""Places of a single shape beside those of a group."""
RELATIONS = {
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
}
"""What stands between two groups, and the places of the first and the second."""
TIMES = ("by day", "at night")

_SPACING = 40
_RADIUS = (13.5, 15.5)
_SHIFT = 3.5
_FINE = 4
_HELD_OUT = 8
"""One of so many pairs of objects, and of single groups, is never trained on."""


@dataclass(frozen=True)
class Group:
    """``number`` equal shapes in a place; ``colour`` is None where the caption leaves it open."""

    number: int
    colour: str | None
    shape: str
    place: str

    @property
    def words(self) -> str:
        """The group without its place, as in “two red circles”."""
        noun = self.shape if self.number == 1 else f"{self.shape}s"
        kind = f"{self.colour} {noun}" if self.colour else noun
        if self.number > 1:
            return f"{NUMBERS[self.number - 1]} {kind}"
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"

    @property
    def centres(self) -> list[tuple[float, float]]:
        """The shapes' centres (x, y) in pixels before random shifts."""
        x, y = (ALONE | CORNERS)[self.place]
        offsets = [(index - (self.number - 1) / 2) * _SPACING for index in range(self.number)]
        if self.place in ("on the left", "on the right"):
            return [(x, y + offset) for offset in offsets]
        return [(x + offset, y) for offset in offsets]


@dataclass(frozen=True)
class Scene:
    """What a picture shows; ``relation`` stands between two groups, ``time`` is None where it is left open."""

    groups: tuple[Group, ...]
    relation: str | None = None
    time: str | None = None

    @property
    def caption(self) -> str:
        """The scene in words, as in “two red circles above a blue square at night”."""
        if self.relation:
            words = [self.groups[0].words, self.relation, self.groups[1].words]
        else:
            words = [self.groups[0].words, self.groups[0].place]
        return " ".join(word for word in (*words, self.time) if word)

    @property
    def held_out(self) -> bool:
        """Whether the combination is kept from training: two objects together, or number, colour and shape alone."""
        objects = sorted(f"{group.colour} {group.shape}" for group in self.groups)
        key = " and ".join(objects) if self.relation else f"{self.groups[0].number} {objects[0]}"
        complete = all(group.colour for group in self.groups)
        return complete and int(hashlib.sha256(key.encode()).hexdigest(), 16) % _HELD_OUT == 0

    def settled(self, random: np.random.Generator) -> Scene:
        """The scene with everything that its caption leaves open chosen at random."""
        groups = tuple(replace(g, colour=g.colour or str(random.choice(list(COLOURS)))) for g in self.groups)
        return replace(self, groups=groups, time=self.time or str(random.choice(TIMES)))


def related(first: tuple[int, str | None, str], relation: str, second: tuple[int, str | None, str]) -> Scene:
    """The scene of two groups, each of a number, a colour and a shape."""
    places = RELATIONS[relation]
    return Scene((Group(*first, places[0]), Group(*second, places[1])), relation)


def random_scene(random: np.random.Generator, held_out: bool = False) -> Scene:
    """A scene for training or, with ``held_out``, one with a combination that training never shows."""
    while True:
        scene = _any_scene(random)
        if scene.held_out == held_out:
            return scene


def _any_scene(random: np.random.Generator) -> Scene:
    def kind(number: int) -> tuple[int, str | None, str]:
        colour = str(random.choice(list(COLOURS))) if random.random() > 0.08 else None
        return number, colour, str(random.choice(SHAPES))

    time = str(random.choice(TIMES)) if random.random() < 0.5 else None
    if random.random() < 0.65:
        first, second = (kind(int(random.integers(1, 4))) for _ in range(2))
        return replace(related(first, str(random.choice(list(RELATIONS))), second), time=time)
    number = int(random.integers(1, 4))
    places = [*ALONE, *CORNERS] if number == 1 else list(ALONE)
    return Scene((Group(*kind(number), str(random.choice(places))),), None, time)


def draw(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """Draw the scene; sizes, shifts, tints and what is left open are random. Returns (SIZE, SIZE, 3), uint8."""
    scene = scene.settled(random)
    pixels = _background(scene.time == "at night", random)
    image = Image.fromarray(pixels.repeat(_FINE, 0).repeat(_FINE, 1))
    pen = ImageDraw.Draw(image)
    for group in scene.groups:
        radius = random.uniform(*_RADIUS)
        shift = random.uniform(-_SHIFT, _SHIFT, 2)
        assert group.colour is not None
        colour = _tinted(COLOURS[group.colour], random)
        for x, y in group.centres:
            tilt = random.uniform(-1, 1, 2)
            _draw_shape(pen, group.shape, x + shift[0] + tilt[0], y + shift[1] + tilt[1], radius, colour)
    return np.asarray(image.reduce(_FINE))


def silhouette(shape: str, size: int) -> np.ndarray:
    """The shape in its bounding box as booleans (size, size)."""
    fine = 512
    image = Image.new("L", (fine, fine))
    _draw_shape(ImageDraw.Draw(image), shape, 64, 64, 16, 255)
    mask = image.crop(image.getbbox()).resize((size, size), Image.Resampling.BOX)
    return np.asarray(mask) > 127


def _background(night: bool, random: np.random.Generator) -> np.ndarray:
    if night:
        top, bottom = np.array([8.0, 10, 30]), np.array([30.0, 35, 75])
    else:
        top, bottom = np.array([190.0, 220, 245]), np.array([235.0, 240, 235])
    top, bottom = (end + random.uniform(-8, 8, 3) for end in (top, bottom))
    rows = np.linspace(top, bottom, SIZE).round().clip(0, 255).astype(np.uint8)
    return np.broadcast_to(rows[:, None], (SIZE, SIZE, 3))


def _tinted(colour: tuple[int, int, int], random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (np.array(colour) + random.uniform(-10, 10, 3)).clip(0, 255).astype(int).tolist()
    return red, green, blue


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: tuple[int, int, int] | int
) -> None:
    """Draw one shape around (x, y), in pixels; an integer ``colour`` fills the whole silhouette."""
    x, y, r = x * _FINE, y * _FINE, radius * _FINE
    whole = isinstance(colour, int)
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "square":
        pen.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x + 1.05 * r, y + 0.85 * r), (x - 1.05 * r, y + 0.85 * r)], fill=colour)
    elif shape == "star":
        corners = [(index * math.pi / 5, 1.1 * r if index % 2 == 0 else 0.5 * r) for index in range(10)]
        pen.polygon([(x + far * math.sin(a), y + 0.08 * r - far * math.cos(a)) for a, far in corners], fill=colour)
    elif shape == "house":
        pen.polygon([(x, y - 1.1 * r), (x + 1.05 * r, y - 0.05 * r), (x - 1.05 * r, y - 0.05 * r)], fill=colour)
        pen.rectangle((x - 0.8 * r, y - 0.1 * r, x + 0.8 * r, y + r), fill=colour)
        pen.rectangle((x - 0.28 * r, y + 0.15 * r, x + 0.28 * r, y + 0.65 * r), fill=colour if whole else WINDOW)
    elif shape == "tree":
        pen.rectangle((x - 0.22 * r, y, x + 0.22 * r, y + 1.1 * r), fill=colour if whole else TRUNK)
        pen.ellipse((x - 0.8 * r, y - 1.1 * r, x + 0.8 * r, y + 0.5 * r), fill=colour)
    else:
        raise ValueError(f"no shape {shape!r}")
