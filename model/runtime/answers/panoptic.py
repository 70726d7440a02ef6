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
    segment: NDArray[np.uint16]  # [k], from 0
    labels: list[int]  # by segment
    scores: list[float]  # by segment


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
    if classes is not None and not set(candidates.labels) & set(classes):
        return PanopticResult(IdMap.uniform(orig_size), ())
    sampling = Sampling.of(size, orig_size, pillow_nearest)
    segment_map, alive = _assign(candidates, sampling)
    if classes is not None:
        segment_map, alive = _only(segment_map, alive, [candidates.labels[index] in classes for index in alive])
    if not alive:
        return PanopticResult(IdMap.uniform(orig_size), ())
    ids = sampling.enlarged(segment_map)
    areas, boxes = areas_and_boxes(ids, len(alive) + 1)
    segments = []
    for number, index in enumerate(alive, start=1):
        label = candidates.labels[index]
        x1, y1, x2, y2 = boxes[number].tolist()
        area, score = int(areas[number]), candidates.scores[index]
        segments.append(Segment(number, label, categories[label].isthing, score, area, (x1, y1, x2, y2)))
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
    number_of: dict[tuple[int, int], int] = {}  # by class, and for things by query as well
    segment: list[int] = []
    labels: list[int] = []
    scores: list[float] = []
    for row in kept.tolist():
        label, score = int(best[row]), float(probabilities[row, best[row]])
        key = (label, row if categories[label].isthing else -1)
        number = number_of.setdefault(key, len(number_of))
        if number == len(labels):
            labels.append(label)
            scores.append(score)
        scores[number] = max(scores[number], score)
        segment.append(number)
    return _Candidates(masks, np.array(segment, dtype=np.uint16), labels, scores)


def _assign(candidates: _Candidates, sampling: Sampling) -> tuple[NDArray[np.uint16], list[int]]:
    """Ids from 1, uint16 [r, c], and the candidates' segments behind them, in order; none if none is large enough.

    One round of dropping small segments is enough: their pixels go to others, so the others only grow.
    """
    if not candidates.labels:
        return np.zeros((0, 0), dtype=np.uint16), []
    size, rows, columns = sampling.size, sampling.rows, sampling.columns
    segment_map = candidates.segment[winners(candidates.masks, size, rows, columns)]
    areas, _ = areas_and_boxes(sampling.enlarged(segment_map), len(candidates.labels))
    small = areas <= LARGEST_DROPPED_AREA
    alive: list[int] = np.flatnonzero(~small).tolist()
    if alive and small.any():
        ys, xs = np.nonzero(small[segment_map])
        heirs = np.flatnonzero(~small[candidates.segment])
        heir = winners_at(candidates.masks[heirs], size, rows[ys], columns[xs])
        segment_map[ys, xs] = candidates.segment[heirs[heir]]
    return np.cumsum(~small, dtype=np.uint16)[segment_map], alive


def _only(
    segment_map: NDArray[np.uint16], alive: list[int], wanted: list[bool]
) -> tuple[NDArray[np.uint16], list[int]]:
    """Leave out segments, whose pixels become void: every pixel has gone to whoever sees it best by then."""
    new_ids = np.cumsum([False, *wanted], dtype=np.uint16) * np.array([False, *wanted])
    return new_ids[segment_map], [index for index, is_wanted in zip(alive, wanted, strict=True) if is_wanted]
