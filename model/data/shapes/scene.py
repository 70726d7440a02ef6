"""What a synthetic scene holds and how it becomes pixels.

`sample_scene` decides everything in units of the picture's short side; `draw_scene` rasterizes that at any
size. Even the test whether a thing is hidden by another is made on a grid of fixed fineness, so the size
never changes the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data.shapes.stuff import TEXTURES, Border, SceneSize
from model.data.shapes.things import OUTLINES, PATTERNS, Thing, coverage, draw_thing, sample_colors

# Width and height of a picture, in units of its short side.
ASPECTS = ((1.0, 1.0), (4 / 3, 1.0), (1.0, 4 / 3), (3 / 2, 1.0))
LAYOUT_GRID = 64  # cells on the short side of the grid on which hiding is judged
LEAST_VISIBLE = 0.6  # of a thing's own area, so that a person can still name it
SMALLEST, LARGEST = 0.18, 0.50  # extent of a thing
ATTEMPTS = 12  # places tried for a thing before it is left out


@dataclass(frozen=True)
class Scene:
    """One picture, before it has a size in pixels."""

    width: float
    height: float
    stuff: tuple[str, ...]  # regions, from the first side of the borders to the last
    stuff_seed: int
    borders: tuple[Border, ...]  # one fewer than the regions
    things: tuple[Thing, ...]  # back to front


@dataclass(frozen=True)
class Drawing:
    """A scene in pixels."""

    image: NDArray[np.uint8]  # [H, W, 3], RGB
    segment_map: NDArray[np.uint8]  # [H, W], an index into `names` for every pixel
    names: tuple[str, ...]  # class of each segment, regions of stuff first; a segment may have no pixel


def sample_scene(seed: int, index: int) -> Scene:
    """Decide what is in scene `index` of the family `seed`; it depends on nothing else."""
    rng = np.random.default_rng([seed, index])
    width, height = ASPECTS[rng.integers(len(ASPECTS))]
    stuff = _sample_stuff(rng)
    borders = _sample_borders(rng, width, height, regions=len(stuff))
    things = _sample_things(rng, width, height)
    return Scene(width, height, stuff, int(rng.integers(2**32)), borders, things)


def _sample_stuff(rng: np.random.Generator) -> tuple[str, ...]:
    """Two or three kinds of stuff in random order, but sky on top, where a person expects it."""
    names = rng.permutation(sorted(TEXTURES))[: rng.integers(2, 4)].tolist()
    return tuple(sorted(names, key=lambda name: name != "sky"))


def _sample_borders(rng: np.random.Generator, width: float, height: float, regions: int) -> tuple[Border, ...]:
    """Borders that share a slant and leave every region about its fair share of the canvas."""
    angle = rng.uniform(-0.3, 0.3) if rng.random() < 0.75 else rng.choice((-1, 1)) * rng.uniform(0.6, 1.1)
    x, y = SceneSize(width, height, 32).grid()
    along = np.sin(angle) * x + np.cos(angle) * y
    borders = []
    for position in range(1, regions):
        share = position / regions + rng.uniform(-0.07, 0.07) * (2 if regions == 2 else 1)
        waves = tuple(
            (rng.uniform(0.4, 1.0) * amplitude, rng.uniform(0.7, 1.3) * frequency, rng.uniform(0, 2 * np.pi))
            for amplitude, frequency in ((0.045, 0.9), (0.012, 3.0))
        )
        borders.append(Border(float(angle), float(np.quantile(along, share)), waves))
    return tuple(borders)


def _sample_things(rng: np.random.Generator, width: float, height: float) -> tuple[Thing, ...]:
    """Two to six things, back to front, none of them hidden too much by those in front of it."""
    names = sorted(OUTLINES)
    things: list[Thing] = []
    top = np.zeros((round(height * LAYOUT_GRID), round(width * LAYOUT_GRID)), dtype=np.uint8)
    areas: list[int] = []  # cells of each thing, seen or not
    for _ in range(rng.integers(2, 7)):
        name = names[rng.integers(len(names))]
        largest = LARGEST
        for _ in range(ATTEMPTS):
            thing = _sample_thing(rng, name, width, height, largest)
            loops = [loop * LAYOUT_GRID for loop in thing.outline()]
            cells = np.asarray(coverage(loops, *top.shape, supersample=1)) > 0
            after = np.where(cells, np.uint8(len(things) + 1), top)
            visible = np.bincount(after.ravel(), minlength=len(things) + 2)[1:]
            if all(seen >= LEAST_VISIBLE * area for seen, area in zip(visible, areas, strict=False)):
                things.append(thing)
                areas.append(int(cells.sum()))
                top = after
                break
            largest = max(SMALLEST, 0.9 * largest)  # the picture is filling up: try a smaller one
    return tuple(things)


def _sample_thing(rng: np.random.Generator, name: str, width: float, height: float, largest: float) -> Thing:
    extent = rng.uniform(SMALLEST, largest)
    margin = 0.48 * extent  # corners may stick out of the picture a little
    return Thing(
        name=name,
        center=(rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)),
        extent=extent,
        angle=rng.uniform(0, 2 * np.pi),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        pattern_scale=rng.uniform(3.0, 5.5),
        colors=sample_colors(rng),
    )


def draw_scene(scene: Scene, size: int) -> Drawing:
    """Draw a scene with `size` pixels on its short side."""
    canvas = SceneSize(scene.width, scene.height, size)
    rng = np.random.default_rng(scene.stuff_seed)
    image = TEXTURES[scene.stuff[0]](rng, canvas)
    segment_map = np.zeros(canvas.shape, dtype=np.uint8)
    for region, (name, border) in enumerate(zip(scene.stuff[1:], scene.borders, strict=True), start=1):
        share = np.clip(border.beyond(canvas) + np.float32(0.5), 0, 1)
        image += share[..., None] * (TEXTURES[name](rng, canvas) - image)
        segment_map[share > 0.5] = region
    for position, thing in enumerate(scene.things, start=len(scene.stuff)):
        box, mask = draw_thing(image, thing, size)
        segment_map[box][mask] = position
    names = scene.stuff + tuple(thing.name for thing in scene.things)
    return Drawing((image * 255 + 0.5).clip(0, 255).astype(np.uint8), segment_map, names)
