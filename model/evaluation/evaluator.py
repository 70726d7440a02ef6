"""Gathers what the network answers for annotated pictures, in any order and in any number of processes, and judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from model.data.formats.coco_dataset import CocoDataset
from model.evaluation.average_precision import FoundMask, average_precision, mask_average_precision
from model.evaluation.instance_truth import InstanceTruth
from model.evaluation.panoptic_quality import (
    MatchCounts,
    PanopticMap,
    SegmentAnnotations,
    count_segments,
    panoptic_quality,
)
from model.evaluation.remarks import out_of_reach, why_no_masks, why_no_precision, why_no_quality
from model.runtime.answers.detections import EVERY_QUERY, detections_of
from model.runtime.answers.instances import instances_of
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.answers.segment_codec import encode_rles
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, ImageOutputs, RawOutputs

OF_MASKS = "_mask"  # ends the names of COCO's figures of masks


class PictureAnswer(NamedTuple):
    """What is kept of the network's answer for a picture."""

    boxes: NDArray[np.float64]  # [queries, 6]: left, top, width, height (pixels), score, category id
    segments: dict[int, MatchCounts]  # by category id; empty where segments are not judged
    masks: tuple[FoundMask, ...]  # best first; empty where they are not judged


class ClassFigures(NamedTuple):
    """The figures of one category of the data: those of boxes and masks for things, those of segments if judged."""

    category: Category
    annotated: int  # objects, crowds not counted
    figures: dict[str, float]  # AP, AP50, AP75 and AR100, those with `OF_MASKS`, PQ, SQ, RQ; -1 if there is nothing


class EvaluationResult(NamedTuple):
    """Everything that is known of how good the answers are."""

    figures: dict[str, float]
    classes: tuple[ClassFigures, ...]
    precision: NDArray[np.float64]  # of boxes, [10 IoUs from 0.50 to 0.95, 101 recalls from 0 to 1], -1 for none
    pictures: int
    notes: tuple[str, ...]  # why figures are undefined or missing, and what cannot be matched, a sentence each


class Evaluator:
    """COCO's twelve figures of boxes and, for models with masks, of masks; PQ, SQ and RQ for panoptic data.

    `update` takes answers in any order and grouping, an image answered twice counts once, and no figure depends on
    either. Figures are of the pictures that were answered. Those of masks have `OF_MASKS` at the end of their names.
    """

    def __init__(
        self,
        data: CocoDataset,
        things: InstanceTruth,
        *,
        categories: Sequence[Category],
        segment_threshold: float,
        mask_stride: int | None,
        segments: SegmentAnnotations | None = None,
    ) -> None:
        """Judge by annotations.

        Args:
            data: the pictures; it says which one an index is.
            things: their annotated objects. If it has masks, those of the answers are judged as well.
            categories: the model's, by class index. What the two have in common is known by category id.
            segment_threshold: the probability that a query needs to be a segment.
            mask_stride: pixels per mask cell; None where the model has no masks.
            segments: the annotated segments of panoptic data; None where they are not judged.

        Raises:
            ValueError: `things` lacks a picture of the data, or model and data share no category.
        """
        self.data = data
        self.things = things
        self.categories = tuple(categories)
        self.segment_threshold = segment_threshold
        self.mask_stride = mask_stride
        self.segments = None if mask_stride is None else segments
        self.answers: dict[int, PictureAnswer] = {}  # by index into data
        known = things.category_ids
        self._thing_classes = [index for index, category in enumerate(categories) if category.id in known]
        if not {c.id for c in categories} & {c.id for c in data.categories}:
            raise ValueError("the model and the data have no category id in common: are they of the same classes?")
        if missing := {record.id for record in data.records} - set(things.images):
            raise ValueError(f"{things.file.name} lacks image {min(missing)}")

    @property
    def with_segments(self) -> bool:
        """Whether segments are judged."""
        return self.segments is not None

    @property
    def with_masks(self) -> bool:
        """Whether the masks of things are judged."""
        return self.mask_stride is not None and self.things.has_masks

    @property
    def mask_threshold(self) -> float:
        """What the graph needs as `mask_threshold` so that it computes the masks which are judged, and no other."""
        if self.with_masks:
            return ALL_MASKS
        return self.segment_threshold if self.with_segments else NO_MASKS

    @property
    def measure(self) -> str:
        """The name of the figure that weights are chosen by: of all that are judged, that of the hardest task."""
        if self.with_segments:
            return "PQ"
        return f"AP{OF_MASKS}" if self.with_masks else "AP"

    @property
    def has_objects(self) -> bool:
        """Whether anything is annotated that is no crowd, without which no average precision is defined."""
        return self.with_segments or any(
            not entry["iscrowd"] for record in self.data.records for entry in self.things.of_picture(record.id)
        )

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
        of_boxes = average_precision(self.things, ((image, answer.boxes) for image, answer in answers), images)
        figures, per_category = of_boxes.total, of_boxes.per_category
        annotated = self._count_annotated(images)
        if self.with_masks:
            masks = ((image, answer.masks) for image, answer in answers)
            of_masks = mask_average_precision(self.things, masks, images)
            figures = figures | _named(of_masks.total)
            per_category = {i: row | _named(of_masks.per_category[i]) for i, row in per_category.items()}
        if self.with_segments:
            of_segments = panoptic_quality((answer.segments for _, answer in answers), self.data.categories)
            figures = figures | of_segments.total
            per_category = {i: per_category.get(i, {}) | c.figures() for i, c in of_segments.per_category.items()}
            annotated = {i: counts.annotated for i, counts in of_segments.per_category.items()}
        classes = tuple(
            ClassFigures(c, annotated.get(c.id, 0), per_category.get(c.id, {})) for c in self.data.categories
        )
        notes = (*self._notes(images), *why_no_quality(figures))
        return EvaluationResult(figures, classes, of_boxes.precision, len(answers), notes)

    def notes(self) -> tuple[str, ...]:
        """Of `EvaluationResult.notes` those that depend on no answer, if all pictures are answered."""
        return self._notes([record.id for record in self.data.records])

    def _notes(self, images: Sequence[int]) -> tuple[str, ...]:
        masks = why_no_masks(self.things) if self.mask_stride is not None else []
        return (*why_no_precision(self.things, images), *out_of_reach(self.things, images), *masks)

    def panoptic(self, index: int, size: tuple[int, int], output: ImageOutputs) -> PanopticResult:
        """The panoptic answer for a picture, as in the service, which is what is judged."""
        assert self.mask_stride is not None
        orig_size = self.data.sizes[index]
        return panoptic(output, size, orig_size, self.categories, self.segment_threshold, self.mask_stride)

    def _answer(self, index: int, size: tuple[int, int], output: ImageOutputs) -> PictureAnswer:
        boxes = self._scored(output, self.data.sizes[index])
        segments = self._count_segments(index, size, output) if self.segments is not None else {}
        return PictureAnswer(boxes, segments, self._masks(index, size, output) if self.with_masks else ())

    def _count_segments(self, index: int, size: tuple[int, int], output: ImageOutputs) -> dict[int, MatchCounts]:
        assert self.segments is not None
        found = self.panoptic(index, size, output)
        category_of = {segment.id: self.categories[segment.label].id for segment in found.segments}
        truth = self.segments.of(index)
        known = {category.id for category in self.data.categories}
        return count_segments(truth, PanopticMap(found.id_map, category_of), known)

    def _masks(self, index: int, size: tuple[int, int], output: ImageOutputs) -> tuple[FoundMask, ...]:
        """The mask of every query, as run lengths, as it is served where no threshold is set.

        One without a pixel is left out, as it is not served; the published evaluation counts it as wrong.
        """
        assert self.mask_stride is not None
        found = instances_of(
            output,
            size,
            self.data.sizes[index],
            self.categories,
            EVERY_QUERY,
            self.mask_stride,
            self._thing_classes,
        )
        return tuple(
            FoundMask(one.score, self.categories[one.label].id, encode_rles(one.mask, [1])[0]["counts"])
            for one in found
        )

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
            for entry in self.things.of_picture(image):
                if not entry["iscrowd"]:
                    counts[entry["category_id"]] = counts.get(entry["category_id"], 0) + 1
        return counts


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures under the names that those of masks have."""
    return {f"{name}{OF_MASKS}": value for name, value in figures.items()}
