"""Answers as COCO results, which pycocotools' `COCO.loadRes` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def image_ids(paths: Sequence[Path]) -> list[int]:
    """The id of each picture: the number that its file is called, as in COCO (`000000000139.jpg` is 139).

    Where one is not called so, or two have one number, all are counted from 1.
    """
    names = [path.stem for path in paths]
    if all(name.isascii() and name.isdigit() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def coco_results(answer: dict[str, Any], image_id: int, file_name: str) -> list[dict[str, Any]]:
    """One entry for each detection, with its box as x, y, width, height in pixels, or for each segment, with its mask.

    A segment has no box beside its mask, for pycocotools would then take the area of the box for the segment's.
    `file_name` stands in each, because an id does not tell it; pycocotools leaves it alone.
    """
    entries = []
    for found in answer.get("detections", answer.get("segments", [])):
        entry = {"image_id": image_id, "category_id": found["category_id"], "score": found["score"]}
        if "rle" in found:
            entry["segmentation"] = found["rle"]
        else:
            x1, y1, x2, y2 = (found["box"][side] for side in ("x1", "y1", "x2", "y2"))
            entry["bbox"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
        entries.append({**entry, "file_name": file_name})
    return entries
