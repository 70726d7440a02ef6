"""Average precision of boxes, COCO's twelve numbers, by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.data.coco_files import read_annotations
from model.data.instances import read_instances

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


class BoxTruth:
    """The annotated boxes of an instances file.

    COCO's evaluator takes annotations by their ids: 0 is its "none", and equal ones replace each other. So it gets
    numbers of ours, for pictures too, and the file's ids are never asked.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            FileNotFoundError, ValueError: where `read_annotations` and `read_instances` do.
        """
        content = read_annotations(path)
        # In the order of their ids, as the evaluator has them: it decides between equal scores.
        ids = sorted(image["id"] for image in content["images"])
        self._numbers = {id_: number for number, id_ in enumerate(ids, 1)}
        entries = [
            {
                "id": number,
                "image_id": self._numbers[instance.image_id],
                "category_id": instance.category_id,
                "bbox": list(instance.box_xywh),
                "area": instance.area,
                "iscrowd": int(instance.iscrowd),
            }
            for number, instance in enumerate(read_instances(content, path), 1)
            if instance.image_id in self._numbers  # where the file is not what is evaluated, it may hold others
        ]
        self.categories = [{"id": category["id"]} for category in content["categories"]]
        self.coco = self.indexed(entries)

    @property
    def images(self) -> Collection[int]:
        """The ids of the pictures."""
        return self._numbers.keys()

    def of(self, image_id: int) -> list[dict[str, Any]]:
        """COCO's annotations of a picture: bbox, category_id, iscrowd."""
        return self.coco.imgToAnns.get(self.number(image_id), [])

    def number(self, image_id: int) -> int:
        """What COCO's evaluator calls a picture."""
        return self._numbers[image_id]

    def indexed(self, entries: Sequence[dict[str, Any]]) -> COCO:
        """Annotations or detections of the same pictures, as COCO's evaluator takes them."""
        coco = COCO()
        images = [{"id": number} for number in self._numbers.values()]
        coco.dataset = {"images": images, "annotations": entries, "categories": self.categories}
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            coco.createIndex()
        return coco


def average_precision(
    truth: BoxTruth, detections: Iterable[tuple[int, NDArray[np.float64]]], images: Sequence[int]
) -> BoxFigures:
    """COCO's figures over some of the annotated pictures.

    Args:
        truth: the annotated boxes.
        detections: an image id, and float64 [n, 6]: left, top, width, height (pixels), score, category id. Those of
            categories that are not annotated (stuff) are left out, as COCO's evaluator has no use for them.
        images: the ids that count, all among the annotated.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(truth.coco, _results(truth, detections), "bbox")
        evaluation.params.imgIds = sorted(map(truth.number, images))
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


def _results(truth: BoxTruth, detections: Iterable[tuple[int, NDArray[np.float64]]]) -> COCO:
    """What `COCO.loadRes` makes of detections, but for outlines, which boxes have no use for; there may be none."""
    known = set(truth.coco.getCatIds())
    found: list[dict[str, Any]] = []
    for image, rows in detections:
        number = truth.number(image)
        for x, y, width, height, score, category in rows.tolist():
            if category in known:
                box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                own = {"id": len(found) + 1, "image_id": number, "category_id": int(category), "score": score}
                found.append(own | box)
    return truth.indexed(found)
