"""From the network's outputs for one image to detections in that image's pixels. There is no NMS in DETR."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EVERY_QUERY = -1.0  # a threshold that every score exceeds


class OutputError(Exception):
    """The network's outputs for an image are not finite numbers, so there is no answer to give."""


@dataclass(frozen=True)
class Detections:
    """Boxes with a label and a score, n of them."""

    scores: NDArray[np.float32]  # [n], probabilities
    labels: NDArray[np.int64]  # [n], class indices
    boxes_xyxy: NDArray[np.float32]  # [n, 4], absolute pixels of the original image


def detections_of(
    pred_logits: NDArray[np.float32],
    pred_boxes: NDArray[np.float32],
    orig_size: tuple[int, int],
    threshold: float,
    classes: Collection[int] | None = None,
) -> Detections:
    """Detections of one image that score above a threshold, best first, with boxes clipped to the image.

    Args:
        pred_logits: float32 [Q, C + 1], the last class is no-object.
        pred_boxes: float32 [Q, 4], cxcywh in [0, 1].
        orig_size: (height, width) in pixels of the image that the boxes are wanted in.
        threshold: a probability, or `EVERY_QUERY`.
        classes: indices of the classes that are wanted; None is all.

    Raises:
        OutputError: a logit or a box is NaN or infinite.
    """
    return queries_and_detections(pred_logits, pred_boxes, orig_size, threshold, classes)[1]


def queries_and_detections(
    pred_logits: NDArray[np.float32],
    pred_boxes: NDArray[np.float32],
    orig_size: tuple[int, int],
    threshold: float,
    classes: Collection[int] | None = None,
) -> tuple[NDArray[np.int64], Detections]:
    """The object query of each detection, int64 [n], and the detections, see `detections_of`."""
    every = scored_boxes(pred_logits, pred_boxes, orig_size)
    order = np.argsort(-every.scores, kind="stable")
    order = order[every.scores[order] > threshold]
    if classes is not None:
        order = order[np.isin(every.labels[order], list(classes))]
    height, width = orig_size
    limits = np.array([width, height, width, height], dtype=np.float32)
    return order, Detections(every.scores[order], every.labels[order], np.clip(every.boxes_xyxy[order], 0, limits))


def scored_boxes(
    pred_logits: NDArray[np.float32], pred_boxes: NDArray[np.float32], orig_size: tuple[int, int]
) -> Detections:
    """Every query's best real class, in query order, with its box as it is (it may reach over the image's
    edge).

    This is the published post-processing (facebookresearch/detr, models/detr.py), to the number. Arguments
    and errors are those of `detections_of`.
    """
    scores, labels = best_real_class(pred_logits)
    if not np.isfinite(pred_boxes).all():
        raise OutputError("the network gave a box that is not finite")
    height, width = orig_size
    scale = np.array([width, height, width, height], dtype=np.float32)
    return Detections(scores, labels, boxes_cxcywh_to_xyxy(pred_boxes) * scale)


def best_real_class(pred_logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Highest probability among the real classes, and its class index: [Q, C + 1] -> float32 [Q], int64 [Q].

    Raises OutputError if a logit is NaN or infinite.
    """
    probabilities = softmax(pred_logits)[:, :-1]
    return probabilities.max(axis=1), probabilities.argmax(axis=1)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis, in float32. Raises OutputError if a logit is NaN or infinite."""
    if not np.isfinite(logits).all():
        raise OutputError("the network gave a logit that is not finite")
    # Without the shift, exp overflows float32 at 89. The shift may overflow too, rightly, to minus infinity.
    with np.errstate(over="ignore"):
        powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float32)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def boxes_cxcywh_to_xyxy(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre and size to corners, [..., 4] -> [..., 4], in whatever unit the boxes have."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([center - 0.5 * size, center + 0.5 * size], axis=-1)
