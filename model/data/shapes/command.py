"""A synthetic panoptic data set in COCO's format, drawn from nothing but a seed.

Scenes of bright shapes (things) before sky, grass, water and brick (stuff) are written as COCO lays its files
out:

    ROOT/train2017/*.jpg                        ROOT/val2017/*.jpg
    ROOT/annotations/instances_train2017.json   things, with RLE masks
    ROOT/annotations/panoptic_train2017.json    things and stuff, and a folder of PNGs beside it

Each scene has its own random generator, seeded by (seed, index): neither the number of workers nor the number
of scenes changes any of them, and no scene of the validation split is ever one of the training split.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from model.data.shapes.scene import Drawing, draw_scene, sample_scene
from model.runtime.categories import Category

# Ids have gaps, as COCO's have, so that nothing downstream can take an id for an index.
CATEGORIES = (
    Category(1, "circle", True, (220, 20, 60)),
    Category(2, "square", True, (255, 179, 0)),
    Category(3, "triangle", True, (128, 62, 117)),
    Category(5, "star", True, (255, 104, 0)),
    Category(6, "cross", True, (0, 83, 138)),
    Category(8, "ring", True, (244, 118, 190)),
    Category(11, "heart", True, (166, 0, 40)),
    Category(13, "arrow", True, (89, 51, 21)),
    Category(101, "sky", False, (120, 180, 240)),
    Category(102, "grass", False, (90, 160, 60)),
    Category(105, "water", False, (0, 130, 140)),
    Category(109, "brick", False, (178, 98, 80)),
)
FIRST_INDEX = {"train": 0, "val": 10_000_000}  # scene indices of the two splits never meet
_JPEG_QUALITY = 95
SEGMENTS_AN_IMAGE = 100  # room left for each image's annotation ids

_BY_NAME = {category.name: category for category in CATEGORIES}


@dataclass(frozen=True)
class _Record:
    """What one scene adds to the two annotation files."""

    image: dict[str, Any]
    instances: list[dict[str, Any]]
    panoptic: dict[str, Any]


def image_name(image_id: int) -> str:
    """File name of an image, as COCO names them."""
    return f"{image_id:012d}.jpg"


def _segment_ids(drawing: Drawing) -> list[int]:
    """A distinct id for each segment whose bytes, seen as RGB, lie near its class's color."""
    ids: list[int] = []
    for name in drawing.names:
        r, g, b = _BY_NAME[name].color
        while (segment_id := r + 256 * g + 65536 * b) in ids or segment_id == 0:
            r, g, b = (r + 41) % 256, (g + 23) % 256, (b + 11) % 256
        ids.append(segment_id)
    return ids


def _tight_box(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's bbox of a mask that is not empty: [left, top, width, height]."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _record(drawing: Drawing, ids: list[int], image_id: int) -> _Record:
    """Describe a drawing as COCO does; segments without a pixel are left out."""
    height, width = drawing.segment_map.shape
    instances: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for position, (name, segment_id) in enumerate(zip(drawing.names, ids, strict=True)):
        mask = drawing.segment_map == position
        if not mask.any():
            continue
        area, box, category = int(mask.sum()), _tight_box(mask), _BY_NAME[name]
        shared = {"category_id": category.id, "area": area, "bbox": box, "iscrowd": 0}
        segments.append({"id": segment_id, **shared})
        if category.isthing:
            key = {"id": image_id * SEGMENTS_AN_IMAGE + position, "image_id": image_id}
            instances.append({**key, **shared, "segmentation": _rle(mask)})
    image = {"id": image_id, "file_name": image_name(image_id), "height": height, "width": width}
    png_name = Path(image_name(image_id)).with_suffix(".png").name
    return _Record(image, instances, {"image_id": image_id, "file_name": png_name, "segments_info": segments})


def _write_scene(index: int, *, root: Path, split: str, size: int, seed: int) -> _Record:
    """Draw scene `index` and write its picture and its id PNG."""
    drawing = draw_scene(sample_scene(seed, index), size)
    image_id = index + 1
    ids = _segment_ids(drawing)
    record = _record(drawing, ids, image_id)
    picture = Image.fromarray(drawing.image)
    picture.save(root / f"{split}2017" / image_name(image_id), quality=_JPEG_QUALITY, subsampling=0)
    colors = np.array([[i & 255, i >> 8 & 255, i >> 16] for i in ids], dtype=np.uint8)
    png = Image.fromarray(colors[drawing.segment_map])
    png.save(_panoptic_folder(root, split) / record.panoptic["file_name"], compress_level=3)
    return record


def _panoptic_folder(root: Path, split: str) -> Path:
    return root / "annotations" / f"panoptic_{split}2017"


def _records(draw: partial[_Record], indices: range, workers: int) -> Iterator[_Record]:
    """Run `draw` on every index, in order, in so many processes."""
    if workers <= 1:
        yield from map(draw, indices)
        return
    # Spawned, not forked: the caller may have threads running.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(draw, indices, chunksize=32)


def _category_records() -> list[dict[str, Any]]:
    return [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": "shape" if category.isthing else "texture",
            "isthing": int(category.isthing),
            "color": list(category.color),
        }
        for category in CATEGORIES
    ]


def _write_split(root: Path, split: str, indices: range, size: int, seed: int, workers: int) -> None:
    (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
    _panoptic_folder(root, split).mkdir(parents=True, exist_ok=True)
    draw = partial(_write_scene, root=root, split=split, size=size, seed=seed)
    records = list(_records(draw, indices, workers))
    info = {"description": f"synthetic shapes, {split}, {size} pixels, seed {seed}"}
    images = [record.image for record in records]
    categories = _category_records()
    instances = {
        "info": info,
        "images": images,
        "annotations": [annotation for record in records for annotation in record.instances],
        "categories": [category for category in categories if category["isthing"]],
    }
    annotations = [record.panoptic for record in records]
    panoptic = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    for kind, content in (("instances", instances), ("panoptic", panoptic)):
        _annotation_file(root, kind, split).write_text(json.dumps(content, separators=(",", ":")))


def _annotation_file(root: Path, kind: str, split: str) -> Path:
    return root / "annotations" / f"{kind}_{split}2017.json"


def write_shapes(root: Path, images: Mapping[str, int], size: int, seed: int, workers: int = 1) -> None:
    """Write a data set of synthetic scenes.

    Args:
        root: the folder to write; made if it is not there.
        images: number of scenes of each split, "train" and "val".
        size: pixels on the short side of every picture.
        seed: chooses the family of scenes.
        workers: processes that draw.

    Raises:
        ValueError: if the size is below 32 pixels, a split is unknown or a number of scenes is out of range.
        FileExistsError: if the folder already holds annotations, which would be overwritten.
    """
    if size < 32:
        raise ValueError(f"size is {size}; a scene needs at least 32 pixels on its short side")
    for split, count in images.items():
        if split not in FIRST_INDEX or not 0 <= count <= FIRST_INDEX["val"]:
            raise ValueError(f"cannot write {count} scenes of split {split!r}")
        for kind in ("instances", "panoptic"):
            if _annotation_file(root, kind, split).exists():
                raise FileExistsError(f"{_annotation_file(root, kind, split)} is already there")
    for split, count in images.items():
        if count:
            first = FIRST_INDEX[split]
            _write_split(root, split, range(first, first + count), size, seed, workers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr shapes`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="Write the data set to this folder.")
    options = {
        "--train": (10_000, "COUNT", "Draw this many training scenes."),
        "--val": (500, "COUNT", "Draw this many validation scenes."),
        "--size": (128, "PIXELS", "Make the short side of every picture this long."),
        "--seed": (0, "NUMBER", "Choose the family of scenes; the same number draws the same scenes."),
        "--workers": (2, "COUNT", "Draw in this many processes."),
    }
    for option, (default, metavar, meaning) in options.items():
        parser.add_argument(
            option, type=int, default=default, metavar=metavar, help=f"{meaning} The default is {default}."
        )


def run(args: argparse.Namespace) -> None:
    """Carry out `detr shapes`: write the data set and say in one line what was written."""
    start = time.perf_counter()
    try:
        write_shapes(args.root, {"train": args.train, "val": args.val}, args.size, args.seed, args.workers)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f"detr shapes: {error}") from error
    seconds = time.perf_counter() - start
    print(
        f"wrote {args.train} training and {args.val} validation scenes, {args.size} pixels on the short "
        f"side, seed {args.seed}, to {args.root} in {seconds:.1f} s"
    )
