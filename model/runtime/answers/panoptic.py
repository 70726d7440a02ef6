"""From mask logits to a panoptic segmentation: every pixel of the image belongs to exactly one segment.

The algorithm is the published one (arXiv:2005.12872, section 5; facebookresearch/detr,
models/segmentation.py): among the queries that see something, each pixel goes to the one with the highest
mask logit; queries of one stuff class are one segment; segments of a few pixels are dropped. It departs from
that implementation where that is in error:

- Masks are cropped to their image before they are resized, so padding does not shift them.
- Queries of one stuff class stay one segment. There, the merge is done once, which leaves all but the first
  of them with no pixel; they are then dropped as too small, and the pixels they had won go to whatever comes
  second.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.detections import OutputError, softmax
from model.runtime.answers.id_map import IdMap, areas_and_boxes
from model.runtime.answers.mask_squares import Marks
from model.runtime.answers.mask_winners import winners, winners_at
from model.runtime.answers.sampling import Sampling, pillow_nearest
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs

LARGEST_DROPPED_AREA = 4  # pixels of the original image


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic result; it has at least one pixel."""

    id: int  # 1 to n, its value in the id map
    label: int  # class index
    isthing: bool
    score: float  # of its best query
    area: int  # pixels
    box_xyxy: tuple[int, int, int, int]  # pixels, tight; right and bottom are exclusive


@dataclass(frozen=True)
class PanopticResult:
    """A panoptic segmentation of one image."""

    ids: IdMap  # of the original image; 0 (void) only where there is no segment at all, or none that was asked for
    segments: tuple[Segment, ...]  # by id

    @cached_property
    def id_map(self) -> NDArray[np.int32]:
        """The ids as an array, int32 [H, W]; made when it is first asked for, because a large photo's is large."""
        return self.ids.array()


@dataclass(frozen=True)
class _Candidates:
    """The queries that see something, as segments: stuff queries of one class share one."""

    masks: NDArray[np.float32]  # [k, ceil(h / stride), ceil(w / stride)], logits
    number: Marks  # [k], of the segment, from 1
    labels: list[int]  # by segment
    scores: list[float]  # by segment


@dataclass(frozen=True)
class _Assigned:
    """Which segment each pixel has gone to, and what came of the segments."""

    numbers: IdMap  # of the original image: segments from 1
    is_dropped: NDArray[np.bool_]  # [segments]
    areas: NDArray[np.int64]  # [segments], pixels of the original image
    boxes: NDArray[np.int64]  # [segments, 4], xyxy in the same pixels; meaningless where there are none


def panoptic(
    outputs: ImageOutputs,
    size: tuple[int, int],
    orig_size: tuple[int, int],
    categories: Sequence[Category],
    threshold: float,
    mask_stride: int,
    classes: Collection[int] | None = None,
) -> PanopticResult:
    """Panoptic segmentation of one image, in its original pixels.

    Args:
        outputs: of a network with masks. What the masks have beyond ceil(h / stride) and ceil(w / stride) is padding; a
            query that has no mask is no candidate.
        size: (h, w) in pixels, the image as the network saw it, without padding.
        orig_size: (H, W) in pixels of the image that the result is wanted in.
        categories: by class index, length C.
        threshold: a query is a candidate if its best class is real and has a probability above this.
        mask_stride: pixels per mask cell.
        classes: indices of the classes whose segments are wanted, which are those of the whole result; None is all.

    Raises:
        OutputError: a logit is NaN or infinite.
    """
    candidates = _candidates(outputs, size, categories, threshold, mask_stride)
    if not candidates.labels or (classes is not None and not set(candidates.labels) & set(classes)):
        return PanopticResult(IdMap.uniform(orig_size), ())
    sampling = Sampling.of(size, orig_size, pillow_nearest)
    assigned = _assign(candidates, sampling)
    is_wanted = ~assigned.is_dropped
    if classes is not None:  # every pixel has gone to whoever sees it best by then; those of others become void
        is_wanted &= np.isin(candidates.labels, list(classes))
    kept = np.flatnonzero(is_wanted).tolist()
    if not kept:
        return PanopticResult(IdMap.uniform(orig_size), ())
    segments = []
    for number, index in enumerate(kept, start=1):
        label = candidates.labels[index]
        x1, y1, x2, y2 = assigned.boxes[index].tolist()
        area, score = int(assigned.areas[index]), candidates.scores[index]
        segments.append(Segment(number, label, categories[label].isthing, score, area, (x1, y1, x2, y2)))
    ids = assigned.numbers
    if len(kept) < len(is_wanted):
        renumbered = np.append(0, np.cumsum(is_wanted) * is_wanted).astype(ids.ids.dtype)
        ids = sampling.enlarged(renumbered.take(ids.ids))
    return PanopticResult(ids, tuple(segments))


def masks_in_image(
    mask_logits: NDArray[np.float32], chosen: NDArray[np.intp], size: tuple[int, int], mask_stride: int
) -> NDArray[np.float32]:
    """Those chosen of k masks, without the padding beside the image: [chosen, ceil(h / stride), ceil(w / stride)].

    Raises OutputError if one of their logits is NaN or infinite.
    """
    height, width = (-(-side // mask_stride) for side in size)
    masks = mask_logits[chosen, :height, :width]
    if not np.isfinite(masks).all():
        raise OutputError("the network gave a mask logit that is not finite")
    return masks


def _candidates(
    outputs: ImageOutputs,
    size: tuple[int, int],
    categories: Sequence[Category],
    threshold: float,
    mask_stride: int,
) -> _Candidates:
    assert outputs.mask_logits is not None
    assert outputs.query_index is not None
    probabilities = softmax(outputs.pred_logits)[outputs.query_index]  # [k, C + 1]
    best = probabilities.argmax(axis=1)
    kept = np.flatnonzero((best < len(categories)) & (probabilities.max(axis=1) > threshold))
    masks = masks_in_image(outputs.mask_logits, kept, size, mask_stride)
    index_of: dict[tuple[int, int], int] = {}  # by class, and for things by query as well
    numbers: list[int] = []
    labels: list[int] = []
    scores: list[float] = []
    for row in kept.tolist():
        label, score = int(best[row]), float(probabilities[row, best[row]])
        key = (label, row if categories[label].isthing else -1)
        index = index_of.setdefault(key, len(index_of))
        if index == len(labels):
            labels.append(label)
            scores.append(score)
        scores[index] = max(scores[index], score)
        numbers.append(index + 1)
    return _Candidates(masks, np.array(numbers, dtype=np.min_scalar_type(len(labels))), labels, scores)


def _assign(candidates: _Candidates, sampling: Sampling) -> _Assigned:
    """Give every pixel to a candidate whose segment is large enough, if there is one.

    One round of dropping small segments is enough: their pixels go to others, so the others only grow.
    """
    size, rows, columns = sampling.size, sampling.rows, sampling.columns
    count, number = len(candidates.labels), candidates.number
    won = winners(candidates.masks, size, rows, columns, number)
    numbers = sampling.enlarged(won)
    areas, boxes = areas_and_boxes(numbers, count + 1)
    is_small = areas <= LARGEST_DROPPED_AREA
    if not is_small.all() and areas[is_small].any():
        ys, xs = np.nonzero(is_small[won])
        heirs = np.flatnonzero(~is_small[number])
        won[ys, xs] = number[heirs[winners_at(candidates.masks[heirs], size, rows[ys], columns[xs])]]
        numbers = sampling.enlarged(won)
        areas, boxes = areas_and_boxes(numbers, count + 1)
    return _Assigned(numbers, is_small[1:], areas[1:], boxes[1:])
