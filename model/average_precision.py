"""Average precision of boxes, COCO's twelve numbers, by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def average_precision(annotations: Path, detections: list[dict[str, Any]], images: list[int]) -> dict[str, float]:
    """The twelve numbers, each in [0, 1] or -1 where nothing of that kind is annotated.

    `detections` are COCO's: image_id, category_id, bbox (xywh, pixels) and score. Those of categories that the
    annotations do not list (stuff) are left out, as COCO's evaluator has no use for them. Raises OSError where the
    annotations cannot be read, and ValueError where they lack one of the images.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO(str(annotations))
        if missing := set(images) - set(truth.getImgIds()):
            raise ValueError(f"{annotations.name} lacks image {min(missing)}")
        known = set(truth.getCatIds())
        kept = [detection for detection in detections if detection["category_id"] in known]
        evaluation = COCOeval(truth, truth.loadRes(kept) if kept else _nothing(truth), "bbox")
        evaluation.params.imgIds = sorted(images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def _nothing(truth: COCO) -> COCO:
    """No detection at all, which `loadRes` does not take."""
    found = COCO()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found
