"""Answers drawn on their pictures, a colour for each class."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GOLDEN_RATIO = 0.618034  # its multiples spread evenly between 0 and 1, however many are taken

_OPACITY = 0.7  # of what was looked at most

_RGB = tuple[int, int, int]


def draw_boxes(
    canvas: Image.Image,
    boxes_xyxy: NDArray[np.float64],
    labels: Sequence[str],
    scores: NDArray[np.float64],
    category_ids: NDArray[np.int64],
) -> Image.Image:
    """Draw k boxes [k, 4] on an RGB picture and return it, the first on top."""
    draw, font = ImageDraw.Draw(canvas), _font(canvas)
    width = max(2, round(min(canvas.size) / 300))
    for number in reversed(range(len(labels))):
        x1, y1, x2, y2 = (round(side) for side in boxes_xyxy[number].tolist())
        color = _color(int(category_ids[number]))
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=color, width=width)
        _tag(draw, canvas, font, f"{labels[number]} {scores[number]:.0%}", (x1, y1), color)
    return canvas


def draw_masks(
    canvas: Image.Image,
    mask_of: Callable[[int], NDArray[np.bool_]],
    labels: Sequence[str],
    scores: NDArray[np.float64],
    category_ids: NDArray[np.int64],
) -> Image.Image:
    """Tint k masks, each bool [height, width], on an RGB picture and return it, with a label in each, the first on
    top.
    """
    pixels = np.array(canvas)
    tags = []
    for number in reversed(range(len(labels))):
        mask = mask_of(number)
        color = _color(int(category_ids[number]))
        pixels[mask] = (pixels[mask] >> 1) + (np.array(color, dtype=np.uint8) >> 1)
        if mask.any():
            tags.append((f"{labels[number]} {scores[number]:.0%}", _middle(mask), color))
    canvas.paste(Image.fromarray(pixels))
    draw, font = ImageDraw.Draw(canvas), _font(canvas)
    for text, corner, color in tags:
        _tag(draw, canvas, font, text, corner, color)
    return canvas


def heat_of(attention: NDArray[np.float64], cell: tuple[float, float], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [rows, columns] of cells of (width, height) pixels as large as a picture of (width, height) pixels: float32
    [height, width], from 0 to 1 at its largest weight.
    """
    rows, columns = attention.shape
    largest = float(attention.max(initial=0)) or 1.0
    cells = Image.fromarray((attention / largest).astype(np.float32))
    seen = (0, 0, min(size[0] / cell[0], columns), min(size[1] / cell[1], rows))  # of the last cells, what is inside
    return np.asarray(cells.resize(size, Image.Resampling.BILINEAR, box=seen), dtype=np.float32).clip(0, 1)


def paint_heat(
    canvas: Image.Image, heats: Sequence[NDArray[np.float32]], category_ids: NDArray[np.int64]
) -> Image.Image:
    """Paint k maps, each float32 [height, width] from 0 to 1, over an RGB picture and return it, the first on top."""
    pixels = np.array(canvas, dtype=np.float32)
    for number in reversed(range(len(heats))):
        weight = _OPACITY * heats[number][..., None]
        pixels += weight * (np.array(_color(int(category_ids[number])), dtype=np.float32) - pixels)
    canvas.paste(Image.fromarray(pixels.round().astype(np.uint8)))
    return canvas


def _middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """A pixel (x, y) of a mask, in the middle of its longest row."""
    y = int(mask.sum(axis=1).argmax())
    inside = np.flatnonzero(mask[y])
    return int(inside[len(inside) // 2]), y


def _color(category_id: int) -> _RGB:
    hue = category_id * _GOLDEN_RATIO % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.45, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tag(
    draw: ImageDraw.ImageDraw,
    canvas: Image.Image,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    corner: tuple[int, int],
    color: _RGB,
) -> None:
    """A filled tag with its lower left corner at `corner` (x, y), or as near to it as the picture allows."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = round(right - left) + 6, round(bottom - top) + 6
    x = max(0, min(corner[0], canvas.width - width))
    y = max(0, min(corner[1] - height, canvas.height - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    draw.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)


def _font(canvas: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, readable at the picture's size."""
    return ImageFont.load_default(size=max(10, min(40, min(canvas.size) / 28)))
