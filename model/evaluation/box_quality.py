"""How good the boxes of one picture are: average precision is of a whole data set and says nothing about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from model.evaluation.panoptic_quality import MatchCounts

MATCH_IOU = 0.5  # at least; the same as for segments, which need more than it


def count_boxes(found: NDArray[np.float64], annotated: Sequence[dict[str, Any]]) -> MatchCounts:
    """Matched, missed and wrong boxes of one picture, counted as panoptic quality counts segments.

    The best detection first, each takes the annotated box of its category that it covers best, if that is free and
    their IoU is enough. A detection that mostly lies in a crowd of its category is neither matched nor wrong.

    Args:
        found: float64 [n, 6]: left, top, width, height (pixels), score, category id, all of which count.
        annotated: COCO's annotations of the picture: bbox, category_id, iscrowd.
    """
    counts = MatchCounts()
    for category in {*found[:, 5].astype(int).tolist(), *(entry["category_id"] for entry in annotated)}:
        own = found[found[:, 5] == category]
        own = own[np.argsort(-own[:, 4], kind="stable"), :4]
        entries = [entry for entry in annotated if entry["category_id"] == category]
        counts += _count_category(own, entries)
    return counts


def _count_category(found_xywh: NDArray[np.float64], annotated: Sequence[dict[str, Any]]) -> MatchCounts:
    crowd = [int(entry["iscrowd"]) for entry in annotated]
    boxes = np.array([entry["bbox"] for entry in annotated], dtype=np.float64).reshape(-1, 4)
    free = ~np.array(crowd, dtype=bool)
    objects = int(free.sum())
    iou, matched, wrong = 0.0, 0, 0
    for box in found_xywh:
        # For a crowd this is the share of the box that lies in it.
        overlaps = np.array(pycocotools.mask.iou(box[None], boxes, crowd)).reshape(-1) if len(boxes) else np.zeros(0)
        candidates = np.where(free, overlaps, -1)
        if candidates.size and candidates.max() >= MATCH_IOU:
            best = int(candidates.argmax())
            free[best] = False
            iou, matched = iou + float(overlaps[best]), matched + 1
        elif not (overlaps[np.array(crowd, dtype=bool)] >= MATCH_IOU).any():
            wrong += 1
    return MatchCounts(iou, matched, objects - matched, wrong)
