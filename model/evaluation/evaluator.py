"""Gathers what the network answers for annotated pictures, in any order and in any number of processes, and judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from model.data.coco_dataset import CocoDataset
from model.data.folders import instances_file, panoptic_file
from model.evaluation.average_precision import BoxTruth, average_precision
from model.evaluation.panoptic_quality import (
    MatchCounts,
    PanopticMap,
    SegmentAnnotations,
    count_segments,
    panoptic_quality,
)
from model.runtime.answers.detections import EVERY_QUERY, detections_of
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs, RawOutputs


class PictureAnswer(NamedTuple):
    """What is kept of the network's answer for a picture."""

    boxes: NDArray[np.float64]  # [queries, 6]: left, top, width, height (pixels), score, category id
    segments: dict[int, MatchCounts]  # by category id; empty where only boxes are judged


class ClassFigures(NamedTuple):
    """The figures of one category of the data: those of boxes for things, those of segments where there are any."""

    category: Category
    annotated: int  # objects, crowds not counted
    figures: dict[str, float]  # AP, AP50, AP75, AR100 and PQ, SQ, RQ; -1 where there is nothing to judge by


class EvaluationResult(NamedTuple):
    """Everything that is known of how good the answers are."""

    figures: dict[str, float]
    classes: tuple[ClassFigures, ...]
    precision: NDArray[np.float64]  # [10 IoUs from 0.50 to 0.95, 101 recalls from 0 to 1], -1 where there is none
    pictures: int


class Evaluator:
    """COCO's twelve box figures and, for panoptic data and models, PQ, SQ and RQ, of all, things and stuff.

    `update` takes answers in any order and grouping, an image answered twice counts once, and no figure depends on
    either. Figures are of the pictures that were answered.
    """

    def __init__(
        self,
        kind: str,
        root: Path,
        split: str,
        data: CocoDataset,
        *,
        categories: Sequence[Category],
        segment_threshold: float,
        mask_stride: int | None,
    ) -> None:
        """Read the annotations of a folder laid out as COCO's.

        Args:
            kind: one of `folders.DATASET_KINDS`; "coco" has boxes only.
            root: the folder.
            split: such as "val".
            data: the same split, opened; it says which picture an index is.
            categories: the model's, by class index. What the two have in common is known by category id.
            segment_threshold: the probability that a query needs to be a segment.
            mask_stride: pixels per mask cell; None where the model has no masks or only boxes are to be judged.

        Raises:
            FileNotFoundError: an annotation file is missing.
            ValueError: one is malformed or lacks a picture of the data, or model and data share no category.
        """
        self.data = data
        self.categories = tuple(categories)
        self.segment_threshold = segment_threshold
        self.mask_stride = None if kind == "coco" else mask_stride
        self.answers: dict[int, PictureAnswer] = {}  # by index into data
        if not {c.id for c in categories} & {c.id for c in data.categories}:
            raise ValueError("the model and the data have no category id in common: are they of the same classes?")
        file = instances_file(root, split)
        self.boxes = BoxTruth(file)
        if missing := {record.id for record in data.records} - set(self.boxes.images):
            raise ValueError(f"{file.name} lacks image {min(missing)}")
        self.segments = SegmentAnnotations(panoptic_file(root, split), data.categories) if self.with_masks else None

    @property
    def with_masks(self) -> bool:
        """Whether segments are judged."""
        return self.mask_stride is not None

    @property
    def mask_threshold(self) -> float:
        """What the graph needs as `mask_threshold` so that it computes the masks which are judged, and no other."""
        return self.segment_threshold if self.with_masks else NO_MASKS

    def update(self, indices: Sequence[int], sizes: Sequence[tuple[int, int]], outputs: RawOutputs) -> None:
        """Take the network's answer for a batch.

        Args:
            indices: B indices into `data`.
            sizes: (height, width) in pixels of each picture as the network saw it, without padding.
            outputs: of the batch, with masks above `mask_threshold`.

        Raises:
            OutputError: an output is not finite.
        """
        for i, (index, size) in enumerate(zip(indices, sizes, strict=True)):
            self.answers[index] = self._answer(index, size, outputs.image(i))

    def gather(self) -> None:
        """Give every process the answers of all. In a single process there is nothing to do."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        parts: list[dict[int, PictureAnswer]] = [{}] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self.answers)
        for part in parts:
            self.answers |= part

    def reset(self) -> None:
        """Forget every answer; the annotations stay."""
        self.answers = {}

    def figures(self) -> dict[str, float]:
        """Every figure by its name, in [0, 1], or -1 where nothing of that kind is annotated (for PQ: or found)."""
        return self.result().figures

    def result(self) -> EvaluationResult:
        """The figures of all and of every category. Raises ValueError where no picture was answered."""
        if not self.answers:
            raise ValueError("no picture was answered, so there are no figures")
        answers = [(self.data.records[index].id, self.answers[index]) for index in sorted(self.answers)]
        images = [image for image, _ in answers]
        of_boxes = average_precision(self.boxes, ((image, answer.boxes) for image, answer in answers), images)
        figures, per_category = of_boxes.total, of_boxes.per_category
        annotated = self._count_annotated(images)
        if self.with_masks:
            of_segments = panoptic_quality((answer.segments for _, answer in answers), self.data.categories)
            figures = figures | of_segments.total
            per_category = {i: per_category.get(i, {}) | c.figures() for i, c in of_segments.per_category.items()}
            annotated = {i: counts.annotated for i, counts in of_segments.per_category.items()}
        classes = tuple(
            ClassFigures(c, annotated.get(c.id, 0), per_category.get(c.id, {})) for c in self.data.categories
        )
        return EvaluationResult(figures, classes, of_boxes.precision, len(answers))

    def panoptic(self, index: int, size: tuple[int, int], output: ImageOutputs) -> PanopticResult:
        """The panoptic answer for a picture, as in the service, which is what is judged."""
        assert self.mask_stride is not None
        orig_size = self.data.sizes[index]
        return panoptic(output, size, orig_size, self.categories, self.segment_threshold, self.mask_stride)

    def _answer(self, index: int, size: tuple[int, int], output: ImageOutputs) -> PictureAnswer:
        boxes = self._scored(output, self.data.sizes[index])
        if self.segments is None:
            return PictureAnswer(boxes, {})
        found = self.panoptic(index, size, output)
        category_of = {segment.id: self.categories[segment.label].id for segment in found.segments}
        truth = self.segments.of(self.data.records[index])
        known = {category.id for category in self.data.categories}
        return PictureAnswer(boxes, count_segments(truth, PanopticMap(found.id_map, category_of), known))

    def _scored(self, output: ImageOutputs, orig_size: tuple[int, int]) -> NDArray[np.float64]:
        """Every query as a row of `PictureAnswer.boxes`, best first, as it is served where no threshold is set.

        Boxes are clipped to the picture; the published evaluation judges them as the network gives them.
        """
        found = detections_of(output.pred_logits, output.pred_boxes, orig_size, EVERY_QUERY)
        ids = np.array([category.id for category in self.categories])[found.labels]
        corner, opposite = found.boxes_xyxy[:, :2], found.boxes_xyxy[:, 2:]
        columns = (corner, opposite - corner, found.scores[:, None], ids[:, None])
        return np.concatenate([column.astype(np.float64) for column in columns], axis=1)

    def _count_annotated(self, images: Sequence[int]) -> dict[int, int]:
        """Number of annotated boxes of these pictures, by category id."""
        counts: dict[int, int] = {}
        for image in images:
            for entry in self.boxes.of(image):
                if not entry["iscrowd"]:
                    counts[entry["category_id"]] = counts.get(entry["category_id"], 0) + 1
        return counts
