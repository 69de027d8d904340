"""The demo model's training pictures, and the program that reads colour, shape, number and place off a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wgtune.cli.demo.reader import mistakes, read
from wgtune.cli.demo.scenes import (
    ALONE,
    COLOURS,
    CORNERS,
    RELATIONS,
    SHAPES,
    Group,
    Scene,
    draw,
    random_scene,
    related,
    silhouette,
)


def numbered(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_captions_are_plain_english() -> None:
    pair = related((2, "red", "circle"), "above", (1, "orange", "house"))
    assert pair.caption == "two red circles above an orange house"
    assert replace(pair, time="at night").caption == "two red circles above an orange house at night"
    assert Scene((Group(3, None, "star", ""),), None, "by day").caption == "three stars by day"
    assert Scene((Group(1, None, "tree", "on the left"),)).caption == "a tree on the left"


@pytest.mark.parametrize("held_out", [False, True])
def test_the_reader_finds_nothing_wrong_with_drawn_scenes(held_out: bool) -> None:
    random = numbered(3)
    for _ in range(150):
        scene = random_scene(random, held_out)
        assert mistakes(scene, draw(scene, random)) == [], scene.caption


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_reader_knows_every_object_by_day_and_at_night(shape: str, colour: str) -> None:
    random = numbered(5)
    for place, (x, y) in (ALONE | CORNERS).items():
        for time in ("by day", "at night"):
            reading = read(draw(Scene((Group(1, colour, shape, place),), None, time), random))
            assert [(found.colour, found.shape) for found in reading.objects] == [(colour, shape)]
            assert max(abs(reading.objects[0].x - x), abs(reading.objects[0].y - y)) < 9
            assert (reading.time, reading.dirt) == (time, 0)


def test_the_reader_finds_each_kind_of_mistake() -> None:
    """Everything a caption says, said otherwise of the same picture."""
    random = numbered(7)
    scene = replace(related((2, "red", "circle"), "above", (1, "blue", "square")), time="by day")
    picture = draw(scene, random)
    assert not mistakes(scene, picture)
    first, second = scene.groups
    others = {
        "number": replace(scene, groups=(replace(first, number=3), second)),
        "fewer": replace(scene, groups=(replace(first, number=1), second)),
        "colour": replace(scene, groups=(replace(first, colour="orange"), second)),
        "shape": replace(scene, groups=(first, replace(second, shape="house"))),
        "exchanged colours": replace(scene, groups=(replace(first, colour="blue"), replace(second, colour="red"))),
        "exchanged places": replace(related((2, "red", "circle"), "below", (1, "blue", "square")), time="by day"),
        "beside instead of above": related((2, "red", "circle"), "left of", (1, "blue", "square")),
        "time": replace(scene, time="at night"),
        "one group": Scene((replace(first, place="at the top"),)),
    }
    for name, other in others.items():
        assert mistakes(other, picture), name
    assert not mistakes(replace(scene, groups=(replace(first, colour=None), second)), picture)


def test_the_reader_finds_blots_dirt_and_nothing() -> None:
    random = numbered(9)
    scene = Scene((Group(1, "green", "circle", "on the left"),), None, "by day")
    picture = draw(scene, random)
    dirty = picture.copy()
    dirty[100:106, 100:106] = 0
    assert mistakes(scene, dirty) == ["1 small spots"]
    blotted = picture.copy()
    for row, column in ((60, 90), (66, 100), (80, 95)):
        blotted[row : row + 8, column : column + 22] = COLOURS["red"]
        blotted[row : row + 25, column : column + 5] = COLOURS["red"]
    assert any("blot" in wrong for wrong in mistakes(scene, blotted))
    assert mistakes(scene, np.full_like(picture, 200)) == ["no green circle at (32, 64)"]
    noise = random.integers(0, 256, picture.shape, dtype=np.uint8)
    assert mistakes(scene, noise)


def test_no_silhouette_is_like_another() -> None:
    outlines = {shape: silhouette(shape, 32) for shape in SHAPES}
    for one, first in outlines.items():
        for other, second in outlines.items():
            overlap = (first & second).sum() / (first | second).sum()
            assert overlap == 1 if one == other else overlap < 0.85, (one, other)


def test_what_a_caption_leaves_open_follows_the_seed() -> None:
    scene = Scene((Group(1, None, "circle", ""),))
    readings = [read(draw(scene, numbered(seed))) for seed in range(40)]
    assert {reading.objects[0].colour for reading in readings} == set(COLOURS)
    assert {reading.time for reading in readings} == {"by day", "at night"}
    assert np.array_equal(draw(scene, numbered(1)), draw(scene, numbered(1)))


def test_held_out_combinations_are_of_every_kind_and_never_trained_on() -> None:
    random = numbered(11)

    def combination(scene: Scene) -> tuple[object, ...]:
        objects = sorted((str(group.colour), group.shape) for group in scene.groups)
        return (*objects, scene.groups[0].number) if scene.relation is None else tuple(objects)

    trained = {combination(random_scene(random)) for _ in range(4000)}
    held_out = [random_scene(random, held_out=True) for _ in range(400)]
    assert not trained & {combination(scene) for scene in held_out}
    relations = Counter(scene.relation for scene in held_out)
    assert set(relations) == {None, *RELATIONS}
    for words in (COLOURS, SHAPES):
        seen = {word for one in trained for part in one if isinstance(part, tuple) for word in part}
        assert set(words) <= seen
