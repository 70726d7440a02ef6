"""Average precision of boxes, COCO's twelve numbers, by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.data.coco_files import field_of, read_annotations
from model.data.objects import read_box

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NOTHING = -1.0  # what COCO's evaluator answers where nothing of that kind is annotated, and panoptic quality as well

# Where COCOeval.accumulate keeps all sizes of boxes, and a hundred detections a picture.
_ALL_SIZES, _HUNDRED = 0, 2
_IOU_50, _IOU_75 = 0, 5  # of its thresholds 0.50, 0.55 and on to 0.95


class BoxFigures(NamedTuple):
    """Every figure is in [0, 1], or -1 where nothing of that kind is annotated."""

    total: dict[str, float]  # by `NAMES`
    per_category: dict[int, dict[str, float]]  # AP, AP50, AP75 and AR100 of every category id
    precision: NDArray[np.float64]  # [10 IoUs from 0.50 to 0.95, 101 recalls from 0 to 1], mean of the categories


def read_boxes(path: Path) -> COCO:
    """An instances file, as COCO's evaluator takes it.

    Files that are not COCO's often leave out what is the same for every box: `iscrowd` is then 0, and `area` that of
    the box. Raises FileNotFoundError or ValueError where `read_annotations` does, and ValueError naming an annotation
    without a box, an image or a category.
    """
    content = read_annotations(path)
    for entry in content["annotations"]:
        where = f"{path}: annotation {field_of(entry, 'id', f'{path}: an annotation')}"
        for name in ("image_id", "category_id"):
            field_of(entry, name, where)
        _, _, width, height = read_box(entry, where)
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", width * height)
    return _indexed(content)


def average_precision(
    truth: COCO, detections: Iterable[tuple[int, NDArray[np.float64]]], images: Sequence[int]
) -> BoxFigures:
    """COCO's figures over some of the annotated pictures.

    Args:
        truth: what `read_boxes` returned.
        detections: an image id, and float64 [n, 6]: left, top, width, height (pixels), score, category id. Those of
            categories that are not annotated (stuff) are left out, as COCO's evaluator has no use for them.
        images: the ids that count, all among the annotated.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(truth, _results(truth, detections), "bbox")
        evaluation.params.imgIds = sorted(images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., _ALL_SIZES, _HUNDRED]  # [10, 101, categories]
    recall = evaluation.eval["recall"][..., _ALL_SIZES, _HUNDRED]  # [10, categories]
    return BoxFigures(
        {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)},
        {
            int(category): {
                "AP": _mean(precision[..., k]),
                "AP50": _mean(precision[_IOU_50, :, k]),
                "AP75": _mean(precision[_IOU_75, :, k]),
                "AR100": _mean(recall[:, k]),
            }
            for k, category in enumerate(evaluation.params.catIds)
        },
        np.array([[_mean(of_categories) for of_categories in row] for row in precision]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of those that are figures."""
    figures = values[values > NOTHING]
    return float(figures.mean()) if figures.size else NOTHING


def _results(truth: COCO, detections: Iterable[tuple[int, NDArray[np.float64]]]) -> COCO:
    """What `COCO.loadRes` makes of detections, but for outlines, which boxes have no use for; there may be none."""
    known = set(truth.getCatIds())
    found: list[dict[str, Any]] = []
    for image, rows in detections:
        for x, y, width, height, score, category in rows.tolist():
            if category in known:
                box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                own = {"id": len(found) + 1, "image_id": image, "category_id": int(category), "score": score}
                found.append(own | box)
    return _indexed({**truth.dataset, "annotations": found})


def _indexed(content: dict[str, Any]) -> COCO:
    indexed = COCO()
    indexed.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        indexed.createIndex()
    return indexed
