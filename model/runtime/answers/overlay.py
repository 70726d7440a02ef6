"""Pictures for people: detections or segments drawn over the image they were found in."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.runtime.answers.attention import Explanation
from model.runtime.answers.detections import Detections
from model.runtime.answers.panoptic import PanopticResult
from model.runtime.categories import Category

RGB = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034  # its multiples spread evenly between 0 and 1, however many are taken
_ROWS_AT_A_TIME = 64  # of a picture that is painted
_ANCHOR_GRID = 128  # cells of the longer side, on which a segment's label finds its place


def draw_detections(
    image: NDArray[np.uint8], detections: Detections, categories: Sequence[Category]
) -> NDArray[np.uint8]:
    """Boxes with a label and a percentage: RGB uint8 [H, W, 3] to the same, the best detection on top."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    font, line = _font(canvas.size), _line_width(canvas.size)
    colors = _instance_colors(detections.labels.tolist(), categories)
    for index in reversed(range(len(detections.scores))):
        x1, y1, x2, y2 = (round(float(side)) for side in detections.boxes_xyxy[index])
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colors[index], width=line)
        text = _caption(categories[int(detections.labels[index])], float(detections.scores[index]))
        _draw_tag(draw, canvas.size, font, text, (x1, y1), colors[index])
    return np.asarray(canvas)


def draw_panoptic(
    image: NDArray[np.uint8], result: PanopticResult, categories: Sequence[Category]
) -> NDArray[np.uint8]:
    """Tinted segments with thin contours and a label inside each: RGB uint8 [H, W, 3] to the same.

    Raises ValueError if the result is of an image of another size.
    """
    if result.id_map.shape != image.shape[:2]:
        raise ValueError(f"a result of size {result.id_map.shape} does not fit an image of size {image.shape[:2]}")
    colors = _instance_colors([segment.label for segment in result.segments], categories)
    canvas = Image.fromarray(_tint(image, result.id_map, colors))
    draw = ImageDraw.Draw(canvas)
    font = _font(canvas.size)
    places = _label_places(result.id_map, len(colors))
    for segment, color in zip(result.segments, colors, strict=True):
        x, y = places[segment.id - 1]
        text = _caption(categories[segment.label], segment.score)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        corner = (x - round(right - left) // 2, y + round(bottom - top) // 2)
        _draw_tag(draw, canvas.size, font, text, corner, color)
    return np.asarray(canvas)


def draw_explanation(
    image: NDArray[np.uint8], explanation: Explanation, categories: Sequence[Category]
) -> NDArray[np.uint8]:
    """Where the network looked, a colour for each object and their boxes, or for each asked point and the point: RGB
    uint8 [H, W, 3] to the same. The brightest places are those with the largest weight, of each map by itself.
    """
    found = explanation.found
    if not explanation.points:
        colors = _instance_colors(found.labels.tolist(), categories)
        return draw_detections(_glowing(image, explanation.object_maps, explanation.cell, colors), found, categories)
    colors = [_hue(turn) for turn in range(len(explanation.points))]
    canvas = Image.fromarray(_glowing(image, explanation.point_maps, explanation.cell, colors))
    draw, radius = ImageDraw.Draw(canvas), 3 * _line_width(canvas.size)
    for (x, y), color in zip(explanation.points, colors, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(255, 255, 255), width=2)
    return np.asarray(canvas)


def _glowing(
    image: NDArray[np.uint8], maps: NDArray[np.float32], cell: tuple[float, float], colors: Sequence[RGB]
) -> NDArray[np.uint8]:
    """The image, darkened, with each map [rows, columns] in its colour; a pixel has that of the map that is largest."""
    height, width = image.shape[:2]
    best, owner = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint16)
    for index, weights in enumerate(maps):
        share = np.round(255 * weights / max(float(weights.max()), 1e-12)).astype(np.uint8)
        seen = (0, 0, min(width / cell[1], share.shape[1]), min(height / cell[0], share.shape[0]))
        layer = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR, seen))
        owner[layer > best] = index
        np.maximum(best, layer, out=best)
    palette = np.array(colors or [(0, 0, 0)], dtype=np.uint16)
    result = np.empty_like(image)
    for start in range(0, height, _ROWS_AT_A_TIME):  # in between, numbers take twice the memory
        rows = slice(start, start + _ROWS_AT_A_TIME)
        share = best[rows, :, None].astype(np.uint16)
        result[rows] = (image[rows] // 2 * (255 - share) + palette[owner[rows]] * share) // 255
    return result


def _hue(turn: int) -> RGB:
    """Colours that differ, from orange on."""
    red, green, blue = colorsys.hls_to_rgb((0.08 + turn * _GOLDEN_RATIO) % 1, 0.6, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tint(image: NDArray[np.uint8], id_map: NDArray[np.int32], colors: Sequence[RGB]) -> NDArray[np.uint8]:
    """The image and each segment's colour, half and half, with a darker line where segments meet; void as it is."""
    if not colors:  # nothing but void
        return image
    palette = np.array([(0, 0, 0), *colors], dtype=np.uint8)
    tinted = (image >> 1) + (palette >> 1)[id_map]
    if not id_map.all():
        np.copyto(tinted, image, where=(id_map == 0)[..., None])
    contour = _contour(id_map, _line_width(id_map.shape))
    tinted[contour] = (palette // 5 * 3)[id_map[contour]]
    return tinted


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


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    canvas_size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    corner: tuple[int, int],
    color: RGB,
) -> None:
    """A filled tag with its lower left corner at `corner` (x, y), or as near to it as the image allows."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = max(2, round((bottom - top) / 4))
    width, height = round(right - left) + 2 * margin, round(bottom - top) + 2 * margin
    x = max(0, min(corner[0], canvas_size[0] - width))
    y = max(0, min(corner[1] - height, canvas_size[1] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    # Perceived brightness (ITU-R BT.601) decides between black and white ink.
    brightness = (299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    draw.text((x + margin - left, y + margin - top), text, fill=ink, font=font)


def _caption(category: Category, score: float) -> str:
    return f"{category.name} {score:.0%}"


def _font(canvas_size: tuple[int, int]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, readable at the image's size and not above its means."""
    return ImageFont.load_default(size=max(10, min(40, min(canvas_size) / 28)))


def _line_width(size: tuple[int, ...]) -> int:
    """Pixels: 2 for ordinary photos, more for large ones."""
    return max(2, round(min(size) / 300))
