"""Pictures for people: detections or segments drawn over the image they were found in."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.runtime.answers.attention import Explanation
from model.runtime.answers.canvas import Canvas
from model.runtime.answers.detections import Detections
from model.runtime.answers.panoptic import PanopticResult
from model.runtime.categories import Category

RGB = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034  # its multiples spread evenly between 0 and 1, however many are taken
_ROWS_AT_A_TIME = 64  # of a picture that is painted
_LOWER_BITS = np.uint32(0x7F7F7F7F)  # seven of each byte
_TAGS = 256  # that are kept, because the frames of a video have most of their captions in common
_ANCHOR_GRID = 128  # cells of the longer side, on which a segment's label finds its place


def draw_detections(
    image: NDArray[np.uint8], detections: Detections, categories: Sequence[Category]
) -> NDArray[np.uint8]:
    """A copy of an image, RGB uint8 [H, W, 3], with detections on it, see `paint_detections`."""
    canvas = Canvas.of(image)
    paint_detections(canvas, detections, categories)
    return canvas.rgb()


def draw_panoptic(
    image: NDArray[np.uint8], result: PanopticResult, categories: Sequence[Category]
) -> NDArray[np.uint8]:
    """A copy of an image, RGB uint8 [H, W, 3], with segments on it, see `paint_panoptic`."""
    canvas = Canvas.of(image)
    paint_panoptic(canvas, result, categories)
    return canvas.rgb()


def paint_detections(canvas: Canvas, detections: Detections, categories: Sequence[Category]) -> None:
    """Draw boxes with a label and a percentage, the best detection on top."""
    draw, line = ImageDraw.Draw(canvas.picture), _line_width(canvas.shape)
    colors = _instance_colors(detections.labels.tolist(), categories)
    for index in reversed(range(len(detections.scores))):
        x1, y1, x2, y2 = (round(float(side)) for side in detections.boxes_xyxy[index])
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colors[index], width=line)
        tag = _tag(canvas, categories[int(detections.labels[index])], float(detections.scores[index]))
        _draw_tag(canvas, draw, tag, (x1, y1), colors[index])


def paint_panoptic(canvas: Canvas, result: PanopticResult, categories: Sequence[Category]) -> None:
    """Tint segments, with thin contours and a label inside each.

    Raises ValueError if the result is of an image of another size.
    """
    if result.id_map.shape != canvas.shape:
        raise ValueError(f"a result of size {result.id_map.shape} does not fit an image of size {canvas.shape}")
    colors = _instance_colors([segment.label for segment in result.segments], categories)
    _tint(canvas.words, result.id_map, colors)
    draw, places = ImageDraw.Draw(canvas.picture), _label_places(result.id_map, len(colors))
    for segment, color in zip(result.segments, colors, strict=True):
        x, y = places[segment.id - 1]
        tag = _tag(canvas, categories[segment.label], segment.score)
        _draw_tag(canvas, draw, tag, (x - tag.text_width // 2, y + tag.text_height // 2), color)


def paint_explanation(canvas: Canvas, explanation: Explanation, categories: Sequence[Category]) -> None:
    """Paint where the network looked, a colour for each object and their boxes, or for each asked point and the point.
    The brightest places are those with the largest weight, of each map by itself.
    """
    found = explanation.found
    if not explanation.points:
        colors = _instance_colors(found.labels.tolist(), categories)
        _glow(canvas.pixels[..., :3], explanation.object_maps, explanation.cell, colors)
        paint_detections(canvas, found, categories)
        return
    colors = [_hue(turn) for turn in range(len(explanation.points))]
    _glow(canvas.pixels[..., :3], explanation.point_maps, explanation.cell, colors)
    draw, radius = ImageDraw.Draw(canvas.picture), 3 * _line_width(canvas.shape)
    for (x, y), color in zip(explanation.points, colors, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(255, 255, 255), width=2)


def _glow(
    image: NDArray[np.uint8], maps: NDArray[np.float32], cell: tuple[float, float], colors: Sequence[RGB]
) -> None:
    """Darken the image [H, W, 3] and paint each map [rows, columns] in its colour; a pixel has that of the map that is
    largest.
    """
    height, width = image.shape[:2]
    best, owner = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint16)
    for index, weights in enumerate(maps):
        share = np.round(255 * weights / max(float(weights.max()), 1e-12)).astype(np.uint8)
        seen = (0, 0, min(width / cell[1], share.shape[1]), min(height / cell[0], share.shape[0]))
        layer = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR, seen))
        owner[layer > best] = index
        np.maximum(best, layer, out=best)
    palette = np.array(colors or [(0, 0, 0)], dtype=np.uint16)
    for start in range(0, height, _ROWS_AT_A_TIME):  # in between, numbers take twice the memory
        rows = slice(start, start + _ROWS_AT_A_TIME)
        share = best[rows, :, None].astype(np.uint16)
        image[rows] = (image[rows] // 2 * (255 - share) + palette[owner[rows]] * share) // 255


def _hue(turn: int) -> RGB:
    """Colours that differ, from orange on."""
    red, green, blue = colorsys.hls_to_rgb((0.08 + turn * _GOLDEN_RATIO) % 1, 0.6, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tint(words: NDArray[np.uint32], id_map: NDArray[np.int32], colors: Sequence[RGB]) -> None:
    """Mix each pixel and its segment's colour, half and half, with a darker line where segments meet; void stays as it
    is. A pixel [H, W] is a word of four bytes, which are halved together.
    """
    if not colors:  # nothing but void
        return
    palette = np.array([(0, 0, 0, 0), *((*color, 0) for color in colors)], dtype=np.uint8)
    half = (words >> 1) & _LOWER_BITS
    half += _as_words(palette // 2)[id_map]
    if id_map.all():
        words[...] = half
    else:
        np.copyto(words, half, where=id_map != 0)
    contour = _contour(id_map, _line_width(id_map.shape))
    words[contour] = _as_words(palette // 5 * 3)[id_map[contour]]


def _as_words(colors: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The words of colours with four bytes: [n, 4] to [n]."""
    return colors.view(np.uint32)[:, 0]


def _contour(id_map: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Lines of about `width` pixels where two ids meet, bool [H, W]."""
    edge = np.zeros(id_map.shape, dtype=np.bool_)
    edge[:, 1:] = id_map[:, 1:] != id_map[:, :-1]
    edge[1:] |= id_map[1:] != id_map[:-1]
    thick = edge.copy()
    # Up and left in turn with down and right, so that the line stays on the border.
    for step in range(1, width):
        shift = (step + 1) // 2
        if step % 2:
            thick[:, :-shift] |= edge[:, shift:]
            thick[:-shift] |= edge[shift:]
        else:
            thick[:, shift:] |= edge[:, :-shift]
            thick[shift:] |= edge[:-shift]
    return thick


def _label_places(id_map: NDArray[np.int32], count: int) -> list[tuple[int, int]]:
    """For each id 1 to count, a pixel (x, y) as far from its border as any, on a coarse grid.

    Every segment's depth comes from the same few erosions of the whole map: a cell survives one if its four
    neighbours survived so far and have its id.
    """
    height, width = id_map.shape
    step = max(1, -(-max(height, width) // _ANCHOR_GRID))
    grid = id_map[step // 2 :: step, step // 2 :: step]
    padded = np.pad(grid, 1, constant_values=-1)
    inner = slice(1, -1)
    before, after = slice(None, -2), slice(2, None)
    neighbours = ((before, inner), (after, inner), (inner, before), (inner, after))
    alike = np.logical_and.reduce([padded[where] == grid for where in neighbours])
    depth = np.zeros(grid.shape, dtype=np.int32)
    alive = alike
    while alive.any():
        depth += alive
        around = np.pad(alive, 1)
        alive = np.logical_and.reduce([alive, *(around[where] for where in neighbours)])
    places = []
    for number in range(1, count + 1):
        own = np.where(grid == number, depth, -1)
        if own.size and own.max() >= 0:
            y, x = (int(part) * step + step // 2 for part in np.unravel_index(int(own.argmax()), own.shape))
        else:  # too thin for the grid
            y, x = (int(part[0]) for part in np.nonzero(id_map == number))
        places.append((x, y))
    return places


def _instance_colors(labels: Sequence[int], categories: Sequence[Category]) -> list[RGB]:
    """Each category's colour, varied in hue and lightness from its second instance on."""
    seen: dict[int, int] = {}
    colors = []
    for label in labels:
        turn = seen[label] = seen.get(label, -1) + 1
        colors.append(_varied(categories[label].color, turn))
    return colors


def _varied(color: RGB, turn: int) -> RGB:
    """The colour itself for turn 0, and slight variations of it after that."""
    if turn == 0:
        return color
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in color))
    shift = (turn * _GOLDEN_RATIO) % 1 - 0.5
    lightness = min(max(lightness + 0.3 * shift, 0.2), 0.8)
    red, green, blue = colorsys.hls_to_rgb((hue + 0.08 * shift) % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class _Tag:
    """What a caption looks like."""

    mask: Image.Image  # of mode L, as large as the tag: where its ink goes
    text_width: int  # pixels
    text_height: int


def _tag(canvas: Canvas, category: Category, score: float) -> _Tag:
    """The caption of a category and its score, readable at the canvas's size and not above its means."""
    return _tag_of(f"{category.name} {score:.0%}", max(10, min(40, min(canvas.shape) / 28)))


@lru_cache(_TAGS)
def _tag_of(text: str, size: float) -> _Tag:
    font = _font(size)
    left, top, right, bottom = font.getbbox(text)
    width, height = round(right - left), round(bottom - top)
    margin = max(2, round((bottom - top) / 4))
    mask = Image.new("L", (width + 2 * margin, height + 2 * margin))
    ImageDraw.Draw(mask).text((margin - left, margin - top), text, fill=255, font=font)
    return _Tag(mask, width, height)


@lru_cache(1)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size=size)


def _draw_tag(canvas: Canvas, draw: ImageDraw.ImageDraw, tag: _Tag, corner: tuple[int, int], color: RGB) -> None:
    """Draw a filled tag with its lower left corner at `corner` (x, y), or as near to it as the image allows."""
    width, height = tag.mask.size
    x = max(0, min(corner[0], canvas.shape[1] - width))
    y = max(0, min(corner[1] - height, canvas.shape[0] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    # Perceived brightness (ITU-R BT.601) decides between black and white ink.
    brightness = (299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000
    canvas.picture.paste((0, 0, 0) if brightness > 140 else (255, 255, 255), (x, y), tag.mask)


def _line_width(size: tuple[int, ...]) -> int:
    """Pixels: 2 for ordinary photos, more for large ones."""
    return max(2, round(min(size) / 300))
