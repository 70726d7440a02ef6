"""Small annotated pictures of known content, written as COCO writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.categories import Category

# Ids with gaps and out of order, so that nothing can take an id for an index.
CAT, DOG = Category(7, "cat", True, (1, 2, 3)), Category(3, "dog", True, (4, 5, 6))
SKY, SEA = Category(50, "sky", False, (7, 8, 9)), Category(21, "sea", False, (9, 8, 7))
CATEGORIES = (CAT, DOG, SKY, SEA)
ISTHING = {category.id: category.isthing for category in CATEGORIES}


@dataclass(frozen=True)
class Scene:
    """A picture's truth: a category for each segment id."""

    id_map: NDArray[np.int32]  # [H, W], 0 is void
    category_of: Mapping[int, int]
    crowds: frozenset[int] = frozenset()


def scene(rows: Sequence[str], crowds: str = "", **category_of: Category) -> Scene:
    """Blocks of 8 x 8 pixels, each a letter that names a segment; a dot is void."""
    letters = np.array([[0 if letter == "." else ord(letter) for letter in row] for row in rows], np.int32)
    # Ids above 255, which need more than one channel of the PNG.
    id_map = np.where(letters > 0, letters * 1000, 0).repeat(8, axis=0).repeat(8, axis=1).astype(np.int32)
    of_id = {ord(letter) * 1000: category.id for letter, category in category_of.items()}
    return Scene(id_map, of_id, frozenset(ord(letter) * 1000 for letter in crowds))


SCENES = (
    scene(["ssss", "scc.", "scc.", "wwww"], s=SKY, c=CAT, w=SEA),
    scene(["sssddd", "ccsddd", "ccsddd", "ssseee"], s=SKY, c=CAT, d=DOG, e=DOG),
    scene(["wwww", "wddw", "wddw", "wwww", "....", "wwww"], w=SEA, d=DOG),
)


def box_xywh(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's tight box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def instance(image_id: int, category_id: int, box: Sequence[float], iscrowd: int = 0) -> dict[str, Any]:
    """An annotation, but for its id."""
    area = box[2] * box[3]
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "area": area, "iscrowd": iscrowd}


def things_of(scenes: Mapping[int, Scene]) -> list[dict[str, Any]]:
    """The instances that belong to segments."""
    return [
        instance(image_id, category, box_xywh(truth.id_map == i), int(i in truth.crowds))
        for image_id, truth in scenes.items()
        for i, category in truth.category_of.items()
        if ISTHING[category]
    ]


def write_annotations(
    root: Path, scenes: Mapping[int, Scene], things: Sequence[dict[str, Any]], of_data: Sequence[Category] = CATEGORIES
) -> None:
    """Both annotation files of split "val" and the id PNGs, with `things` as instances."""
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    images: list[Any] = []
    panoptics: list[Any] = []
    for image_id, truth in scenes.items():
        height, width = truth.id_map.shape
        name = f"{image_id:012d}"
        channels = np.stack([truth.id_map >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
        Image.fromarray(channels).save(folder / f"{name}.png")
        infos = [
            {
                "id": i,
                "category_id": category,
                "area": int((truth.id_map == i).sum()),
                "bbox": box_xywh(truth.id_map == i),
                "iscrowd": int(i in truth.crowds),
            }
            for i, category in truth.category_of.items()
        ]
        images.append({"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width})
        panoptics.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": infos})
    instances = [{"id": number, **entry} for number, entry in enumerate(things, start=1)]
    categories = [{"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)} for c in of_data]
    for kind, listed in (("instances", instances), ("panoptic", panoptics)):
        of_kind = [c for c in categories if c["isthing"] or kind == "panoptic"]
        content = {"images": images, "annotations": listed, "categories": of_kind}
        (root / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(content))


def write_scenes(root: Path, scenes: Mapping[int, Scene]) -> None:
    """A whole data set: each picture is grey, ten times as bright as the scene's place."""
    write_annotations(root, scenes, things_of(scenes))
    (root / "val2017").mkdir()
    for place, (image_id, truth) in enumerate(scenes.items()):
        picture = np.full((*truth.id_map.shape, 3), 10 * place, np.uint8)
        Image.fromarray(picture).save(root / "val2017" / f"{image_id:012d}.jpg")
