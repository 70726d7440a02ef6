"""The same few pictures with an object each, laid out as annotation tools lay them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from model.data.formats.coco_dataset import CocoDataset

WIDTH, HEIGHT = 24, 16
PICTURES = [f"{name}.png" for name in ("ash", "birch", "cedar", "elm", "fir", "oak")]
CATEGORIES = [{"id": 1, "name": "fork"}, {"id": 2, "name": "cup"}]


class Folder(NamedTuple):
    """Where a tool writes annotations and pictures; without `{split}` there are no splits."""

    annotations: str
    images: str
    names: str = "{name}"  # how the annotations call a picture


LAYOUTS = {
    "COCO 2017": Folder("annotations/instances_{split}2017.json", "{split}2017"),
    "COCO 2017 below images": Folder("annotations/instances_{split}2017.json", "images/{split}2017"),
    "COCO 2014": Folder("annotations/instances_{split}2014.json", "{split}2014"),
    "Roboflow": Folder("{split}/_annotations.coco.json", "{split}"),
    "CVAT": Folder("annotations/instances_default.json", "images/default"),
    "CVAT, as it was": Folder("annotations/instances_default.json", "images"),
    "CVAT with subsets": Folder("annotations/instances_{split}.json", "images/{split}"),
    "Label Studio": Folder("result.json", "images", "images/{name}"),
    "Label Studio with paths of its server": Folder(
        "result.json", "images", "../../label-studio/media/upload/3/{name}"
    ),
    "FiftyOne": Folder("labels.json", "data"),
    "FiftyOne with splits": Folder("{split}/labels.json", "{split}/data"),
    "files named by split": Folder("annotations/{split}.json", "images"),
    "files named by split, in the root": Folder("{split}.json", "{split}"),
    "labelme": Folder("annotations.json", "JPEGImages", "JPEGImages/{name}"),
    "one file of any name": Folder("labels_my-project_2026.json", "images"),
    "one file beside the pictures": Folder("coco.json", "."),
}


def write_layout(root: Path, layout: str) -> None:
    """Three pictures to learn from and three to validate with, or all where the layout knows no splits."""
    folder = LAYOUTS[layout]
    halves = {"train": PICTURES[:3], "val" if layout != "Roboflow" else "valid": PICTURES[3:]}
    for split, pictures in halves.items() if "{split}" in folder.annotations else [("", PICTURES)]:
        annotations, images = (root / path.format(split=split) for path in folder[:2])
        write_pictures(images, pictures)
        write_json(annotations, coco_content(pictures, folder.names))


def write_coco(file: Path, images: Path, pictures: Sequence[str]) -> Path:
    """Pictures, and their annotations; returns the file of these."""
    write_pictures(images, pictures)
    return write_json(file, coco_content(pictures))


def write_json(file: Path, content: dict[str, Any]) -> Path:
    """A file of JSON, in a folder that is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_pictures(folder: Path, pictures: Sequence[str]) -> None:
    """Gray pictures, each a little lighter than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(pictures):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 8 * number % 256, np.uint8)).save(folder / name)


def coco_content(pictures: Sequence[str], written: str = "{name}") -> dict[str, Any]:
    """COCO's instances of pictures: in each a box with its outline, of both classes in turn."""
    left, top, width, height = 4, 2, 12, 8
    outline = [left, top, left + width, top, left + width, top + height, left, top + height]
    return {
        "images": [
            {"id": number, "file_name": written.format(name=name), "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(pictures, 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1 + number % 2,
                "bbox": [left, top, width, height],
                "segmentation": [outline],
                "area": width * height,
                "iscrowd": 0,
            }
            for number in range(1, len(pictures) + 1)
        ],
        "categories": CATEGORIES,
    }


def names(data: CocoDataset) -> list[str]:
    """What the pictures of a data set are called, in order of the alphabet."""
    return sorted(Path(record.file_name).name for record in data.records)
