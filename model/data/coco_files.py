"""What COCO's annotation files have in common: reading the JSON, its categories and its pictures.

Every complaint names the file and the id in question, because a data set has hundreds of thousands of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from model.category_names import distinct_color
from model.runtime.categories import Category

# Keys of a target, all tensors: image_id int64 [], orig_size and size int64 [2] as (height, width) in pixels,
# labels int64 [m] as class indices, boxes [m, 4], and masks [m, height, width] where they are asked for.
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

    Raises FileNotFoundError if there is none, ValueError if it is not COCO's JSON or lists no image.
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
    if not content["images"]:
        raise ValueError(f"{path} lists no image")
    return dict(content)


def read_categories(content: dict[str, Any]) -> tuple[Category, ...]:
    """The categories of an annotation file, ordered by id: a category's position is its class index."""
    ordered = sorted(content["categories"], key=lambda category: int(category["id"]))
    return tuple(
        Category(
            id=int(category["id"]),
            name=str(category["name"]),
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


def read_records(content: dict[str, Any]) -> tuple[ImageRecord, ...]:
    """The pictures of an annotation file, ordered by id."""
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    return tuple(ImageRecord(int(i["id"]), str(i["file_name"]), int(i["height"]), int(i["width"])) for i in images)


def class_indices(categories: Sequence[Category]) -> dict[int, int]:
    """From category id to class index."""
    return {category.id: index for index, category in enumerate(categories)}


def class_index(indices: dict[int, int], category_id: int, where: str) -> int:
    """The class index of a category id; ValueError naming it and the place it was met if there is none."""
    if category_id not in indices:
        raise ValueError(f"{where} has category {category_id}, which is not among the categories")
    return indices[category_id]


def read_image(folder: Path, record: ImageRecord) -> tv_tensors.Image:
    """Decode a picture to RGB, uint8 [3, height, width].

    It is not turned by its EXIF orientation: COCO's annotations belong to the stored pixels.

    Raises FileNotFoundError if it is not there, ValueError if it cannot be decoded or has another size than
    annotated.
    """
    path = folder / record.file_name
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {record.id} has no file {path}") from error
    except OSError as error:
        raise ValueError(f"image {record.id}, {path}, cannot be decoded: {error}") from error
    if pixels.shape[:2] != (record.height, record.width):
        annotated, found = f"{record.width} x {record.height}", f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ValueError(f"image {record.id}, {path}, is {found} pixels but annotated as {annotated}")
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def make_target(record: ImageRecord, labels: Sequence[int], boxes_xyxy: Tensor, masks: Tensor | None) -> Target:
    """Gather a target, leaving out boxes without an area.

    Args:
        record: the picture it belongs to.
        labels: m class indices.
        boxes_xyxy: [m, 4], absolute pixels; clipped to the picture here.
        masks: uint8 [m, height, width], 0 or 1, or None.
    """
    size = (record.height, record.width)
    limits = torch.tensor([record.width, record.height] * 2, dtype=torch.float32)
    boxes = boxes_xyxy.to(torch.float32).reshape(-1, 4).clamp(min=0).minimum(limits)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    target: Target = {
        "image_id": torch.tensor(record.id),
        "orig_size": torch.tensor(size),
        "size": torch.tensor(size),
        "labels": torch.tensor(labels, dtype=torch.int64)[kept],
        "boxes": tv_tensors.BoundingBoxes(
            boxes[kept],
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=size,
        ),
    }
    if masks is not None:
        target["masks"] = tv_tensors.Mask(masks[kept])
    return target
