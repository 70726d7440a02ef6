"""From mask logits to instances: each query that sees a thing has a mask of its own, and masks may overlap.

This is the published post-processing (facebookresearch/detr, models/segmentation.py, PostProcessSegm) but for one
thing: masks are cropped to their image before they are resized, so that padding does not shift them. A mask is where
the upsampled logit is above zero, which is where its sigmoid is above 0.5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.detections import best_real_class
from model.runtime.answers.id_map import IdMap, areas_and_boxes
from model.runtime.answers.mask_winners import above_zero
from model.runtime.answers.panoptic import PanopticResult, Segment, masks_in_image
from model.runtime.answers.sampling import Sampling, torch_nearest
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs


@dataclass(frozen=True)
class Instance:
    """One object; its mask has at least one pixel."""

    label: int  # class index
    score: float
    area: int  # pixels
    box_xyxy: tuple[int, int, int, int]  # pixels, tight around the mask; right and bottom are exclusive
    mask: IdMap  # of the original image: 1 on the object, else 0


@dataclass(frozen=True)
class Instances:
    """The instances of one image, best first. A mask is resized when it is asked for and kept by nobody, because a
    hundred of them are a hundred times the picture.
    """

    categories: Sequence[Category]  # by class index
    labels: list[int]  # [n], class indices, of all queries that were chosen: also of those whose mask has no pixel
    _scores: list[float]  # [n]
    _logits: NDArray[np.float32]  # [n, ceil(h / stride), ceil(w / stride)]
    _sampling: Sampling

    def at(self, index: int) -> Instance | None:
        """The instance of one of the labels; None if its mask has no pixel."""
        sampling = self._sampling
        ys, xs, mask = above_zero(self._logits[index], sampling.size, sampling.rows, sampling.columns)
        if not mask.any():
            return None
        placed = sampling.placed(mask.view(np.uint8), ys, xs)
        areas, boxes = areas_and_boxes(placed, 2)
        x1, y1, x2, y2 = boxes[1].tolist()
        return Instance(self.labels[index], self._scores[index], int(areas[1]), (x1, y1, x2, y2), placed)

    def __iter__(self) -> Iterator[Instance]:
        """Those that have a pixel, best first."""
        every = (self.at(index) for index in range(len(self.labels)))
        return (instance for instance in every if instance is not None)

    def on_top(self) -> PanopticResult:
        """Each pixel as its best instance's, to be drawn; an instance that is hidden by better ones is left out."""
        sampling = self._sampling
        owners = np.zeros((len(sampling.rows), len(sampling.columns)), dtype=np.uint16)
        for index in reversed(range(len(self.labels))):
            ys, xs, mask = above_zero(self._logits[index], sampling.size, sampling.rows, sampling.columns)
            owners[ys, xs][mask] = index + 1
        visible = np.unique(owners[owners > 0])
        ids = sampling.enlarged(np.searchsorted(visible, owners, side="right"))
        areas, boxes = areas_and_boxes(ids, len(visible) + 1)
        segments = []
        for number, owner in enumerate(visible.tolist(), start=1):
            label, (x1, y1, x2, y2) = self.labels[owner - 1], boxes[number].tolist()
            isthing, score = self.categories[label].isthing, self._scores[owner - 1]
            segments.append(Segment(number, label, isthing, score, int(areas[number]), (x1, y1, x2, y2)))
        return PanopticResult(ids, tuple(segments))


def instances_of(
    outputs: ImageOutputs,
    size: tuple[int, int],
    orig_size: tuple[int, int],
    categories: Sequence[Category],
    threshold: float,
    mask_stride: int,
    classes: Collection[int] | None = None,
) -> Instances:
    """Instances of one image, in its original pixels.

    Args:
        outputs: of a network with masks. What the masks have beyond ceil(h / stride) and ceil(w / stride) is padding; a
            query that has no mask is no instance.
        size: (h, w) in pixels, the image as the network saw it, without padding.
        orig_size: (H, W) in pixels of the image that the result is wanted in.
        categories: by class index, length C.
        threshold: a query is an instance if its best real class has a probability above this.
        mask_stride: pixels per mask cell.
        classes: indices of the classes that are wanted; None is all things.

    Raises:
        OutputError: a logit is NaN or infinite.
    """
    assert outputs.mask_logits is not None
    assert outputs.query_index is not None
    if classes is None:
        classes = {index for index, category in enumerate(categories) if category.isthing}
    scores, labels = (found[outputs.query_index] for found in best_real_class(outputs.pred_logits))
    order = np.argsort(-scores, kind="stable")
    order = order[(scores[order] > threshold) & np.isin(labels[order], list(classes))]
    logits = masks_in_image(outputs.mask_logits, order, size, mask_stride)
    sampling = Sampling.of(size, orig_size, torch_nearest)
    return Instances(categories, labels[order].tolist(), scores[order].tolist(), logits, sampling)
