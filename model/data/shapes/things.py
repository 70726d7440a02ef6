"""The things of a synthetic scene: eight outlines, and how one of them is colored and drawn.

Lengths are in units of the picture's short side and become pixels only when a thing is drawn, so the same
thing looks the same at every size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Points = NDArray[np.float64]  # [n, 2], x and y (y points down)
_Pixels = NDArray[np.float32]  # [h, w] or [h, w, 3]
Color = tuple[float, float, float]  # RGB in [0, 1]

SUPERSAMPLE = 3  # outlines are rasterized this many times finer, then averaged
RIM = 0.055  # width of the outline, as a fraction of the thing's extent
PATTERNS = ("plain", "striped", "dotted", "gradient")


def _regular(radii: Sequence[float], turn: float = -np.pi / 2) -> Points:
    """Points at equal angles around the origin, at the given radii, clockwise on the screen."""
    angles = turn + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _plus(arm: float) -> Points:
    """A cross whose arms are `2 * arm` wide and reach to 1."""
    x, y = np.array([-arm, -arm, arm]), np.array([-arm, -1.0, -1.0])
    quarters = [(x, y), (-y, x), (-x, -y), (y, -x)]  # each a quarter turn after the one before
    return np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])


def _heart() -> Points:
    """Two round lobes, and tangents to them that meet in the tip, clockwise from the notch."""
    aside, radius, tip = 0.44, 0.52, 1.05  # the right lobe's center is (aside, 0), the tip (0, tip)
    start = np.arccos(aside / radius) - np.pi
    end = np.arctan2(tip, -aside) - np.arccos(radius / np.hypot(aside, tip))
    angles = np.linspace(start, end, 32)
    right = np.stack([aside + radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    left = (right * [-1, 1])[:0:-1]
    return np.concatenate([right, [[0, tip]], left])


def _unit(loops: Sequence[Points]) -> tuple[Points, ...]:
    """Center the outline on the origin and scale it so that the longer side of its box is 1."""
    low, high = loops[0].min(axis=0), loops[0].max(axis=0)
    return tuple((loop - (low + high) / 2) / (high - low).max() for loop in loops)


_CIRCLE = _regular([1.0] * 64)
_ARROW = np.array([[-1, -0.3], [0.1, -0.3], [0.1, -0.75], [1, 0], [0.1, 0.75], [0.1, 0.3], [-1, 0.3]])

# A first loop is the outer border; a second one, running the other way round, is a hole.
OUTLINES: dict[str, tuple[Points, ...]] = {
    "circle": _unit([_CIRCLE]),
    "square": _unit([_regular([1.0] * 4, turn=-3 * np.pi / 4)]),
    "triangle": _unit([_regular([1.0] * 3)]),
    "star": _unit([_regular([1.0, 0.45] * 5)]),
    "cross": _unit([_plus(0.33)]),
    "ring": _unit([_CIRCLE, 0.52 * _CIRCLE[::-1]]),
    "heart": _unit([_heart()]),
    "arrow": _unit([_ARROW]),
}


def _inset(loop: Points, distance: float) -> Points:
    """Move every edge of a clockwise loop inwards by `distance`, keeping the corners sharp."""
    edges = np.roll(loop, -1, axis=0) - loop
    edges /= np.linalg.norm(edges, axis=1, keepdims=True)
    after = np.stack([-edges[:, 1], edges[:, 0]], axis=1)  # inward normal of the edge that leaves each corner
    before = np.roll(after, 1, axis=0)
    bend = 1 + (after * before).sum(axis=1, keepdims=True)
    shift: Points = distance * (after + before) / np.maximum(bend, 0.1)
    return loop + shift


INTERIORS = {name: tuple(_inset(loop, RIM) for loop in loops) for name, loops in OUTLINES.items()}


@dataclass(frozen=True)
class Thing:
    """One shape of a scene; lengths in units of the short side."""

    name: str  # a key of OUTLINES
    center: tuple[float, float]  # x, y
    extent: float
    angle: float  # radians
    pattern: str  # one of PATTERNS
    pattern_scale: float  # stripes or dots along the extent
    colors: tuple[Color, Color, Color]  # first and second color of the pattern, rim

    def place(self, loops: Sequence[Points]) -> list[Points]:
        """Turn, scale and move unit loops to where this thing lies."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[c, s], [-s, c]])
        return [self.extent * (loop @ turn) + np.asarray(self.center) for loop in loops]

    def outline(self) -> list[Points]:
        """The thing's border in scene coordinates."""
        return self.place(OUTLINES[self.name])


def _bright(rng: np.random.Generator) -> Color:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.0))


def _mix(color: Color, other: float, amount: float) -> Color:
    r, g, b = ((1 - amount) * channel + amount * other for channel in color)
    return r, g, b


def sample_colors(rng: np.random.Generator) -> tuple[Color, Color, Color]:
    """Draw a bright color, one that goes with it, and a rim that stands out from the background.

    The class plays no part in it, so color says nothing about shape.
    """
    first = _bright(rng)
    second = (_bright(rng), _mix(first, 1.0, 0.75), _mix(first, 0.0, 0.5))[rng.integers(3)]
    luminance = 0.299 * first[0] + 0.587 * first[1] + 0.114 * first[2]
    rim = _mix(first, 0.0, 0.75) if luminance > 0.45 else _mix(first, 1.0, 0.85)
    return first, second, rim


def coverage(loops: Sequence[Points], height: int, width: int, supersample: int = SUPERSAMPLE) -> Image.Image:
    """How much of each pixel is inside `loops` (pixels): an "L" image, 255 where the pixel is all covered."""
    image = Image.new("L", (width * supersample, height * supersample))
    draw = ImageDraw.Draw(image)
    for fill, loop in zip((255, 0), loops, strict=False):
        # Pillow's pixel centers lie on whole numbers, ours half a pixel further.
        draw.polygon((loop * supersample - 0.5).ravel().tolist(), fill=fill)
    return image.reduce(supersample) if supersample > 1 else image


def _pattern(thing: Thing, u: _Pixels, v: _Pixels, pixels: float) -> _Pixels:
    """The share of the second color, [h, w] in [0, 1], at points (u, v) of a thing `pixels` wide."""
    sharpness = pixels / thing.pattern_scale
    share = np.zeros_like(u)
    if thing.pattern == "striped":
        share = (np.abs((u * thing.pattern_scale) % 1 - 0.5) - 0.25) * sharpness + 0.5
    elif thing.pattern == "dotted":
        cell_u, cell_v = (u * thing.pattern_scale) % 1 - 0.5, (v * thing.pattern_scale) % 1 - 0.5
        share = (0.3 - np.hypot(cell_u, cell_v)) * sharpness + 0.5
    elif thing.pattern == "gradient":
        share = u + 0.5
    return share.clip(0, 1)


def _paint(thing: Thing, left: int, top: int, inside: _Pixels, size: int) -> _Pixels:
    """Color of each pixel of the thing's box, [h, w, 3] in [0, 1]; `inside` is what the rim leaves free."""
    height, width = inside.shape
    scale = np.float32(1 / size / thing.extent)
    x = (np.arange(width, dtype=np.float32) + np.float32(left + 0.5 - thing.center[0] * size)) * scale
    y = (np.arange(height, dtype=np.float32) + np.float32(top + 0.5 - thing.center[1] * size)) * scale
    c, s = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    share = _pattern(thing, c * x + s * y[:, None], c * y[:, None] - s * x, pixels=thing.extent * size)
    first, second, rim = (np.asarray(color, dtype=np.float32) for color in thing.colors)
    body = first + share[..., None] * (second - first)
    return rim + inside[..., None] * (body - rim)


def draw_thing(image: _Pixels, thing: Thing, size: int) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Draw a thing, with a soft shadow, over what the picture holds so far.

    Args:
        image: [H, W, 3] float32 in [0, 1], changed in place.
        thing: what to draw.
        size: pixels on the picture's short side.

    Returns:
        The thing's box as (rows, columns) of the picture, and its mask in that box: coverage above one half.
    """
    outline = [loop * size for loop in thing.outline()]
    margin = 2 + round(0.03 * size)
    left, top = np.maximum(np.floor(outline[0].min(axis=0)).astype(int) - margin, 0).tolist()
    right, bottom = np.ceil(outline[0].max(axis=0)).astype(int) + margin
    right, bottom = min(int(right), image.shape[1]), min(int(bottom), image.shape[0])
    height, width = bottom - top, right - left
    origin = np.array([left, top])
    covered = coverage([loop - origin for loop in outline], height, width)
    interior = thing.place(INTERIORS[thing.name])
    inner = np.asarray(coverage([loop * size - origin for loop in interior], height, width)).astype(np.float32)
    shadow = covered.filter(ImageFilter.BoxBlur(0.02 * size))

    box = (slice(top, bottom), slice(left, right))
    view = image[box]
    view *= 1 - np.asarray(shadow)[..., None] * np.float32(0.35 / 255)
    pixels = np.asarray(covered)
    alpha = pixels.astype(np.float32)[..., None] / 255
    view += alpha * (_paint(thing, left, top, inner / np.float32(255), size) - view)
    return box, pixels > 127
