"""What COCO's annotation files have in common: reading the JSON, its categories and its records of pictures.

Every complaint names the file and the id in question, because a data set has hundreds of thousands of both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from model.categories.names import distinct_color
from model.data.formats.json_fields import entries_of, flag, text, whole_number, wrong
from model.runtime.categories import Category

# Keys of a target, all tensors: image_id int64 [], orig_size and size int64 [2] as (height, width) in pixels,
# labels int64 [m] as class indices, boxes [m, 4], isthing bool [m] in panoptic data and, where masks are asked for,
# mask_ids [layers, height, width] and mask_values int64 [m] (see `mask_layers.MaskLayers`).
Target = dict[str, Tensor]

# No picture has more pixels on a side; masks of such a size would take all memory.
_LARGEST_SIDE = 100_000
_LARGEST_CATEGORY_ID = 2**53  # what arrays of floats hold exactly
_LARGEST_SEGMENT_ID = 2**24 - 1  # a colour of the id PNG


@dataclass(frozen=True)
class ImageRecord:
    """One picture of an annotation file."""

    id: int
    file_name: str
    height: int  # pixels
    width: int


class SegmentRecord(NamedTuple):
    """A segment of a panoptic annotation."""

    id: int
    category_id: int
    iscrowd: bool
    where: str  # how complaints about it begin
    info: dict[str, Any]  # as in the file


class PanopticEntry(NamedTuple):
    """What a panoptic file says of a picture."""

    file_name: str  # of its id PNG
    segments: tuple[SegmentRecord, ...]


def read_annotations(path: Path) -> dict[str, Any]:
    """Parse an annotation file. The ids of its images and categories are whole numbers afterwards.

    Raises FileNotFoundError if there is none, ValueError if it is not COCO's JSON, lists no image
    or category, or one of them without an id of its own. An image that is listed twice in the very same way is one.
    """
    content = _parsed(path)
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(f"{path} is not an annotation file: it has no {', '.join(sorted(missing))}")
    for name, singular in (("images", "image"), ("categories", "category")):
        content[name] = _with_ids(entries_of(content, name, str(path)), f"{path}: {singular}")
        if not content[name]:
            raise ValueError(f"{path} lists no {singular}")
    entries_of(content, "annotations", str(path))
    return dict(content)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no annotation file {path}") from error
    except UnicodeDecodeError as error:
        where = f"byte {error.start:,} is none of {error.encoding}"
        raise ValueError(f"{path} is not text in UTF-8, UTF-16 or UTF-32 ({where}): save it as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not an annotation file: its lists lie too deep in one another") from error


def _with_ids(entries: list[Any], where: str) -> list[dict[str, Any]]:
    """The entries with whole numbers as their ids, each id once."""
    by_id: dict[int, dict[str, Any]] = {}
    for entry in entries:
        id_ = whole_number(entry, "id", where)
        entry["id"] = id_
        if by_id.setdefault(id_, entry) != entry:
            raise ValueError(f"{where} {id_} is listed twice, as two different ones")
    return list(by_id.values())


def read_categories(content: dict[str, Any], path: Path) -> tuple[Category, ...]:
    """The categories of what `read_annotations` returned, ordered by id: a category's position is its class index.

    Raises ValueError if one has no name, or an id, a color or an `isthing` that is none.
    """
    return tuple(
        _category(category, index, path)
        for index, category in enumerate(sorted(content["categories"], key=itemgetter("id")))
    )


def _category(category: dict[str, Any], index: int, path: Path) -> Category:
    where = f"{path}: category {category['id']}"
    if not abs(category["id"]) <= _LARGEST_CATEGORY_ID:
        raise wrong(where, "id", category["id"], f"{_LARGEST_CATEGORY_ID} at most")
    # Instance annotations are of things only.
    isthing = flag(category, "isthing", where, default=True)
    return Category(category["id"], text(category, "name", where), isthing, _color(category.get("color"), index, where))


def _color(color: Any, index: int, where: str) -> tuple[int, int, int]:
    if color is None:
        return distinct_color(index)
    if isinstance(color, str) and re.fullmatch("#[0-9A-Fa-f]{6}", color):
        color = list(bytes.fromhex(color[1:]))
    if not isinstance(color, list) or len(color) != 3 or not all(_is_channel(channel) for channel in color):
        raise wrong(where, "color", color, "red, green and blue from 0 to 255")
    red, green, blue = (int(channel) for channel in color)
    return red, green, blue


def _is_channel(value: Any) -> bool:
    return type(value) in (int, float) and value in range(256)


def read_records(content: dict[str, Any], path: Path) -> tuple[ImageRecord, ...]:
    """The pictures of what `read_annotations` returned, ordered by id; ValueError if one has no name or no size."""
    return tuple(_record(image, path) for image in sorted(content["images"], key=itemgetter("id")))


def _record(image: dict[str, Any], path: Path) -> ImageRecord:
    where = f"{path}: image {image['id']}"
    height, width = (whole_number(image, side, where, smallest=1) for side in ("height", "width"))
    if max(height, width) > _LARGEST_SIDE:
        raise ValueError(f"{where} has height {height} and width {width}: no picture is larger than {_LARGEST_SIDE}")
    return ImageRecord(image["id"], text(image, "file_name", where), height, width)


def class_indices(categories: Sequence[Category]) -> dict[int, int]:
    """From category id to class index."""
    return {category.id: index for index, category in enumerate(categories)}


def class_index(indices: dict[int, int], category_id: int, where: str) -> int:
    """The class index of a category id; ValueError naming it and the place it was met if there is none."""
    if category_id not in indices:
        raise ValueError(f"{where} has category {category_id}, which is not among the categories")
    return indices[category_id]


def panoptic_entries(content: dict[str, Any], path: Path) -> dict[int, PanopticEntry]:
    """The annotations of a panoptic file by image id. Raises ValueError naming what is malformed."""
    entries: dict[int, PanopticEntry] = {}
    known = {image["id"] for image in content["images"]}
    for position, entry in enumerate(content["annotations"], 1):
        unnamed = f"{path}: annotation number {position}"
        id_ = whole_number(entry, "image_id", unnamed)
        where = f"{path}: image {id_}"
        if id_ not in known:
            raise ValueError(f"{unnamed} belongs to image {id_}, which is not in the file")
        if id_ in entries:
            raise ValueError(f"{where} has two annotations: all its segments belong into one")
        infos = entries_of(entry, "segments_info", where)
        segments = tuple(_segment(info, f"{where}, a segment", where) for info in infos)
        seen: set[int] = set()
        for segment in segments:
            if segment.id in seen:
                raise ValueError(f"{segment.where} is listed twice: each segment of a picture has an id of its own")
            seen.add(segment.id)
        entries[id_] = PanopticEntry(text(entry, "file_name", where), segments)
    return entries


def _segment(info: Any, unnamed: str, image: str) -> SegmentRecord:
    id_ = whole_number(info, "id", unnamed, smallest=0, largest=_LARGEST_SEGMENT_ID)
    where = f"{image}, segment {id_}"
    category_id = whole_number(info, "category_id", where)
    return SegmentRecord(id_, category_id, flag(info, "iscrowd", where, default=False), where, info)
