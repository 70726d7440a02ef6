"""The stuff of a synthetic scene: four procedural textures and the wavy borders between them.

How many random numbers a texture draws, and in which order, does not depend on the picture's size in pixels,
so the same seed gives the same clouds and waves at every size. Lengths are in units of the picture's short
side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_Pixels = NDArray[np.float32]  # [H, W] or [H, W, 3]


@dataclass(frozen=True)
class SceneSize:
    """A picture's size, in units of its short side and in pixels."""

    width: float  # units
    height: float  # units
    size: int  # pixels on the short side

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return round(self.height * self.size), round(self.width * self.size)

    def grid(self) -> tuple[_Pixels, _Pixels]:
        """x as [1, W] and y as [H, 1] of the pixel centers, in units."""
        height, width = self.shape
        x = np.arange(width, dtype=np.float32) + np.float32(0.5)
        y = np.arange(height, dtype=np.float32) + np.float32(0.5)
        return (x / np.float32(self.size))[None, :], (y / np.float32(self.size))[:, None]


@dataclass(frozen=True)
class Border:
    """A wavy line across the canvas: points with `along(x, y) > level + waves` lie beyond it."""

    angle: float  # radians between the line and the horizontal
    level: float
    waves: tuple[tuple[float, float, float], ...]  # (amplitude, frequency, phase)

    def beyond(self, canvas: SceneSize) -> _Pixels:
        """Signed distance past the line, in pixels, [H, W]."""
        x, y = canvas.grid()
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        across = cos * x - sin * y
        along = sin * x + cos * y - np.float32(self.level)
        for amplitude, frequency, phase in self.waves:
            turns = np.float32(2 * np.pi * frequency) * across + np.float32(phase)
            along -= np.float32(amplitude) * np.sin(turns)
        return along * np.float32(canvas.size)


def _smoothstep(low: float, high: float, values: _Pixels) -> _Pixels:
    t: _Pixels = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(rng: np.random.Generator, canvas: SceneSize, across: float, down: float) -> _Pixels:
    """Smooth noise in about [0, 1], [H, W], with so many cells to a unit across and down."""
    cells = rng.random((2 + int(down * canvas.height), 2 + int(across * canvas.width)), dtype=np.float32)
    height, width = canvas.shape
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def _jittered(rng: np.random.Generator, color: tuple[float, float, float], amount: float = 0.06) -> _Pixels:
    """A color near the given one, float32 [3] in [0, 1]."""
    return np.clip(np.asarray(color) + rng.uniform(-amount, amount, 3), 0, 1).astype(np.float32)


def _blend(first: _Pixels, second: _Pixels, share: _Pixels) -> _Pixels:
    """From `first` [3] where `share` [H, W] is 0 to `second` [3] where it is 1."""
    return first + share[..., None] * (second - first)


def sky(rng: np.random.Generator, canvas: SceneSize) -> _Pixels:
    """A blue that pales downwards, with clouds."""
    high, low = _jittered(rng, (0.20, 0.45, 0.85)), _jittered(rng, (0.62, 0.82, 0.97), 0.04)
    amount = rng.uniform(0.50, 0.58)
    octaves = ((0.55, 2.5, 5), (0.3, 5, 10), (0.15, 10, 20))
    billows = sum(weight * _noise(rng, canvas, across, down) for weight, across, down in octaves)
    _, y = canvas.grid()
    gradient = np.broadcast_to(y / np.float32(canvas.height), canvas.shape)
    clouds = np.float32(0.9) * _smoothstep(amount, amount + 0.22, np.asarray(billows))
    picture = _blend(high, low, gradient)
    return picture + clouds[..., None] * (1 - picture)


def _blades(rng: np.random.Generator, canvas: SceneSize) -> _Pixels:
    """Blades of grass as a factor on brightness, [H, W], drawn twice as fine and averaged."""
    count = int(170 * canvas.width * canvas.height)
    roots = rng.uniform((0, 0), (canvas.width, canvas.height + 0.1), (count, 2))
    tips = roots + rng.uniform((-0.045, -0.15), (0.045, -0.07), (count, 2))
    grays = rng.integers(70, 245, count).tolist()
    height, width = canvas.shape
    layer = Image.new("L", (2 * width, 2 * height), 128)
    draw = ImageDraw.Draw(layer)
    half = np.array([0.007, 0.0])
    blades = np.concatenate([roots - half, roots + half, tips], axis=1)
    order = np.argsort(roots[:, 1])  # nearer blades, lower in the picture, lie over farther ones
    for blade, gray in zip((2 * canvas.size * blades[order]).tolist(), grays, strict=True):
        draw.polygon(blade, fill=gray)
    return np.asarray(layer.reduce(2)).astype(np.float32) / np.float32(128)


def grass(rng: np.random.Generator, canvas: SceneSize) -> _Pixels:
    """Green, in lighter and darker patches, with blades."""
    dark, light = _jittered(rng, (0.13, 0.40, 0.10)), _jittered(rng, (0.42, 0.68, 0.18))
    patches = 0.6 * _noise(rng, canvas, 4, 6) + 0.4 * _noise(rng, canvas, 60, 14)
    factor = 0.55 + 0.45 * _blades(rng, canvas)
    return np.clip(_blend(dark, light, patches) * factor[..., None], 0, 1)


def water(rng: np.random.Generator, canvas: SceneSize) -> _Pixels:
    """Teal, with rows of bright crests and dark troughs."""
    deep, light = _jittered(rng, (0.02, 0.36, 0.42), 0.04), _jittered(rng, (0.16, 0.66, 0.66), 0.05)
    rows, swell, ripple, phase = rng.uniform((8, 2.5, 0.10, 0), (12, 4.5, 0.22, 2 * np.pi))
    drift, breaks = _noise(rng, canvas, 3, 3), _noise(rng, canvas, 7, 12)
    x, y = canvas.grid()
    bend = np.float32(ripple) * np.sin(np.float32(2 * np.pi * swell) * x + 9 * drift + np.float32(phase))
    height = np.sin(np.float32(2 * np.pi) * (np.float32(rows) * y + bend + 0.8 * drift))
    picture = _blend(deep, light, 0.5 + 0.35 * height)
    crests = 0.75 * _smoothstep(0.80, 0.98, height) * _smoothstep(0.42, 0.62, breaks)
    return picture + crests[..., None] * (1 - picture)


def brick(rng: np.random.Generator, canvas: SceneSize) -> _Pixels:
    """Courses of red brick, each of its own shade, in pale mortar."""
    clay, mortar = _jittered(rng, (0.62, 0.25, 0.17)), _jittered(rng, (0.80, 0.76, 0.70), 0.05)
    course, joint = rng.uniform(0.085, 0.125), 0.014
    length = course * rng.uniform(2.0, 2.5)
    shades = rng.uniform(0.72, 1.18, (2 + int(canvas.height / course), 3 + int(canvas.width / length)))
    grain = _noise(rng, canvas, 50, 50)
    x, y = canvas.grid()
    row = np.floor(y / course).astype(np.int64)
    shifted = x / np.float32(length) + np.float32(0.5) * (row % 2).astype(np.float32)
    column = np.floor(shifted).astype(np.int64)
    # Distance, in units, to the middle of the nearest joint of either direction.
    aside = np.minimum(shifted - column, 1 - (shifted - column)) * np.float32(length)
    above = np.abs((y / np.float32(course) + np.float32(0.5)) % 1 - np.float32(0.5)) * np.float32(course)
    face = np.clip((np.minimum(aside, above) - np.float32(joint / 2)) * canvas.size + 0.5, 0, 1)
    tone = shades.astype(np.float32)[row, column] * (0.85 + 0.3 * grain)
    picture: _Pixels = mortar + face[..., None] * (clay * tone[..., None] - mortar)
    return picture.clip(0, 1)


TEXTURES: dict[str, Callable[[np.random.Generator, SceneSize], _Pixels]] = {
    "sky": sky,
    "grass": grass,
    "water": water,
    "brick": brick,
}
