"""Average precision of boxes and of masks, COCO's twelve numbers of each, by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from model.evaluation.instance_truth import InstanceTruth

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NOTHING = -1.0  # what COCO's evaluator answers where nothing of that kind is annotated, and panoptic quality as well

# Where COCOeval.accumulate keeps all sizes, and a hundred detections a picture.
_ALL_SIZES, _HUNDRED = 0, 2
_IOU_50, _IOU_75 = 0, 5  # of its thresholds 0.50, 0.55 and on to 0.95


class FoundMask(NamedTuple):
    """A mask that was found in a picture. There are many: a hundred in each picture, for the published models."""

    score: float
    category_id: int
    counts: str  # compressed run lengths, of the picture's size


class PrecisionFigures(NamedTuple):
    """Every figure is in [0, 1], or -1 where nothing of that kind is annotated."""

    total: dict[str, float]  # by `NAMES`
    per_category: dict[int, dict[str, float]]  # AP, AP50, AP75 and AR100 of every category id
    precision: NDArray[np.float64]  # [10 IoUs from 0.50 to 0.95, 101 recalls from 0 to 1], mean of the categories


def average_precision(
    truth: InstanceTruth, detections: Iterable[tuple[int, NDArray[np.float64]]], images: Sequence[int]
) -> PrecisionFigures:
    """COCO's figures of boxes over some of the annotated pictures.

    Args:
        truth: what is annotated.
        detections: an image id, and float64 [n, 6]: left, top, width, height (pixels), score, category id. Those of
            categories that are not annotated (stuff) are left out, as COCO's evaluator has no use for them.
        images: the ids that count, all among the annotated.
    """
    found = (
        (image, score, category, {"bbox": [x, y, width, height], "area": width * height})
        for image, rows in detections
        for x, y, width, height, score, category in rows.tolist()
    )
    return _figures(truth, found, images, "bbox")


def mask_average_precision(
    truth: InstanceTruth, detections: Iterable[tuple[int, Sequence[FoundMask]]], images: Sequence[int]
) -> PrecisionFigures:
    """COCO's figures of masks (`segm`). Arguments as in `average_precision`, but with masks, also those of `truth`."""
    found = (
        (mask, image, {"size": list(truth.size(image)), "counts": mask.counts})
        for image, masks in detections
        for mask in masks
    )
    shaped = (
        (image, mask.score, mask.category_id, {"segmentation": rle, "area": float(pycocotools.mask.area(rle))})
        for mask, image, rle in found
    )
    return _figures(truth, shaped, images, "segm")


def _figures(
    truth: InstanceTruth,
    found: Iterable[tuple[int, float, float, dict[str, Any]]],
    images: Sequence[int],
    shape: Literal["bbox", "segm"],
) -> PrecisionFigures:
    """From an image id, a score, a category id and what is said of the shape, for everything that was found."""
    results: list[dict[str, Any]] = []
    for image, score, category, what in found:
        if category in truth.category_ids:
            own = {"id": len(results) + 1, "image_id": truth.number(image), "category_id": int(category)}
            results.append({**own, "score": score, "iscrowd": 0, **what})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(truth.coco, truth.indexed(results), shape)
        evaluation.params.imgIds = sorted(map(truth.number, images))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., _ALL_SIZES, _HUNDRED]  # [10, 101, categories]
    recall = evaluation.eval["recall"][..., _ALL_SIZES, _HUNDRED]  # [10, categories]
    return PrecisionFigures(
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
