"""Which pictures went best and which worst: average precision is of a whole data set and says nothing about one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from model.evaluation.average_precision import NOTHING
from model.evaluation.evaluator import Evaluator
from model.evaluation.panoptic_quality import MatchCounts

SHOWN = 6  # of the best and of the worst
MATCH_IOU = 0.5  # at least; the same as for segments, which need more than it


class Ranking(NamedTuple):
    """How good the pictures are, each by `MatchCounts.quality`; without those that have nothing annotated or found."""

    qualities: list[float]  # from the worst on
    best: list[int]  # indices into the data, the best first
    worst: list[int]  # the worst first; none of the best is among them


def rank_pictures(evaluator: Evaluator, detect_threshold: float) -> tuple[Ranking, dict[int, MatchCounts]]:
    """Order the answered pictures, and return the counts of each."""
    counts = {index: picture_counts(evaluator, index, detect_threshold) for index in sorted(evaluator.answers)}
    judged = [index for index in counts if counts[index].quality > NOTHING]
    judged.sort(key=lambda index: counts[index].quality)  # equals stay in the order of their ids
    worst = judged[: min(SHOWN, (len(judged) + 1) // 2)]
    best = judged[::-1][: min(SHOWN, len(judged) // 2)]
    return Ranking([counts[index].quality for index in judged], best, worst), counts


def picture_counts(evaluator: Evaluator, index: int, detect_threshold: float) -> MatchCounts:
    """What is matched, missed and wrong in one answered picture: segments or, where there are none, boxes.

    Of the boxes those count that score above `detect_threshold`, as in the service.
    """
    answer = evaluator.answers[index]
    if evaluator.with_segments:
        return sum(answer.segments.values(), MatchCounts())
    known = np.isin(answer.boxes[:, 5], [category.id for category in evaluator.data.categories])
    kept = answer.boxes[known & (answer.boxes[:, 4] > detect_threshold)]
    return count_boxes(kept, evaluator.things.of_picture(evaluator.data.records[index].id))


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
