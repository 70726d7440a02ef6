"""What COCO's annotation files have in common: reading the JSON, its categories and its records of pictures.

Every complaint names the file and the id in question, because a data set has hundreds of thousands of both.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model.categories.names import distinct_color
from model.runtime.categories import Category

# Keys of a target, all tensors: image_id int64 [], orig_size and size int64 [2] as (height, width) in pixels,
# labels int64 [m] as class indices, boxes [m, 4], isthing bool [m] in panoptic data and, where masks are asked for,
# mask_ids [layers, height, width] and mask_values int64 [m] (see `mask_layers.MaskLayers`).
Target = dict[str, Tensor]


@dataclass(frozen=True)
class ImageRecord:
    """One picture of an annotation file."""

    id: int
    file_name: str
    height: int  # pixels
    width: int


def read_annotations(path: Path) -> dict[str, Any]:
    """Parse an annotation file.

    Raises FileNotFoundError if there is none, ValueError if it is not COCO's JSON, lists no image
    or category, or one of them without an id of its own.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no annotation file {path}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(f"{path} is not an annotation file: it has no {', '.join(sorted(missing))}")
    for name, singular in (("images", "image"), ("categories", "category")):
        if not content[name]:
            raise ValueError(f"{path} lists no {singular}")
        _refuse_odd_ids(content[name], f"{path}: {singular}")
    return dict(content)


def _refuse_odd_ids(entries: list[dict[str, Any]], where: str) -> None:
    for id_, count in Counter(field_of(entry, "id", where) for entry in entries).items():
        if type(id_) is not int or count > 1:
            raise ValueError(f"{where} {id_!r} " + ("is listed twice" if count > 1 else "must have a number as its id"))


def field_of(entry: Any, name: str, where: str) -> Any:
    """A field of an entry; ValueError naming the place if there is none."""
    if not isinstance(entry, dict) or name not in entry:
        raise ValueError(f"{where} has no {name}")
    return entry[name]


def read_categories(content: dict[str, Any]) -> tuple[Category, ...]:
    """The categories of an annotation file, ordered by id: a category's position is its class index."""
    ordered = sorted(content["categories"], key=lambda category: int(category["id"]))
    return tuple(
        Category(
            id=int(category["id"]),
            name=str(field_of(category, "name", f"category {category['id']}")),
            isthing=bool(category.get("isthing", True)),  # instance annotations are of things only
            color=_color(category.get("color"), index),
        )
        for index, category in enumerate(ordered)
    )


def _color(color: Sequence[int] | None, index: int) -> tuple[int, int, int]:
    if color is None:
        return distinct_color(index)
    red, green, blue = (int(channel) for channel in color)
    return red, green, blue


def read_records(content: dict[str, Any], path: Path) -> tuple[ImageRecord, ...]:
    """The pictures of an annotation file, ordered by id; ValueError if one has no file name or no size."""
    return tuple(_record(image, path) for image in sorted(content["images"], key=lambda image: int(image["id"])))


def _record(image: dict[str, Any], path: Path) -> ImageRecord:
    where = f"{path}: image {image['id']}"
    height, width = field_of(image, "height", where), field_of(image, "width", where)
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise ValueError(f"{where} has height {height!r} and width {width!r}: they must be whole pixels, 1 or more")
    return ImageRecord(int(image["id"]), str(field_of(image, "file_name", where)), height, width)


def class_indices(categories: Sequence[Category]) -> dict[int, int]:
    """From category id to class index."""
    return {category.id: index for index, category in enumerate(categories)}


def class_index(indices: dict[int, int], category_id: int, where: str) -> int:
    """The class index of a category id; ValueError naming it and the place it was met if there is none."""
    if category_id not in indices:
        raise ValueError(f"{where} has category {category_id}, which is not among the categories")
    return indices[category_id]
