"""The graph's outputs as they leave an engine, for a batch and for one image of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_MASKS = 2.0  # a mask_threshold that no probability exceeds
ALL_MASKS = -1.0  # a mask_threshold that every probability exceeds


@dataclass(frozen=True)
class ImageAttention:
    """What the attention of the last layers compares, of one image; the channels of the heads lie side by side."""

    cross_queries: NDArray[np.float32]  # [Q, C], of the object queries in the decoder
    cross_keys: NDArray[np.float32]  # [canvas height / stride, canvas width / stride, C]
    self_queries: NDArray[np.float32]  # the same shape, in the encoder
    self_keys: NDArray[np.float32]  # the same shape

    def copy(self) -> ImageAttention:
        """The same in memory of its own."""
        return ImageAttention(
            self.cross_queries.copy(), self.cross_keys.copy(), self.self_queries.copy(), self.self_keys.copy()
        )


@dataclass(frozen=True)
class RawAttention:
    """The same of a batch: [B, Q, C] and [B, H / stride, W / stride, C]."""

    cross_queries: NDArray[np.float32]
    cross_keys: NDArray[np.float32]
    self_queries: NDArray[np.float32]
    self_keys: NDArray[np.float32]

    @classmethod
    def of(cls, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, ...], stride: int) -> RawAttention:
        """From the graph's outputs, in the order of `ATTENTION_OUTPUTS`, of a canvas of (height, width) pixels."""
        queries, *of_cells = outputs
        rows, columns = (side // stride for side in canvas)
        return cls(queries, *(array.reshape(len(array), rows, columns, -1) for array in of_cells))

    def image(self, index: int) -> ImageAttention:
        """The part that belongs to one image, without copies."""
        return ImageAttention(
            self.cross_queries[index], self.cross_keys[index], self.self_queries[index], self.self_keys[index]
        )


@dataclass(frozen=True)
class ImageOutputs:
    """What the network says about one image of a batch."""

    pred_logits: NDArray[np.float32]  # [Q, C + 1]
    pred_boxes: NDArray[np.float32]  # [Q, 4], cxcywh in [0, 1]
    mask_logits: NDArray[np.float32] | None  # [k, canvas height / stride, canvas width / stride]
    query_index: NDArray[np.int64] | None  # [k], ascending: the query of each mask
    attention: ImageAttention | None = None  # where it was asked for


@dataclass(frozen=True)
class RawOutputs:
    """The graph's outputs for a batch. Those of masks are None for a detection model."""

    pred_logits: NDArray[np.float32]  # [B, Q, C + 1], the last class is no-object
    pred_boxes: NDArray[np.float32]  # [B, Q, 4], cxcywh in [0, 1] of the unpadded image
    pred_masks: NDArray[np.float32] | None  # [kept, H / stride, W / stride], logits
    mask_index: NDArray[np.int64] | None  # [kept, 2]: batch and query of each mask, in ascending order
    attention: RawAttention | None = None  # where it was asked for

    def image(self, index: int) -> ImageOutputs:
        """The part that belongs to one image; its arrays share memory with the batch's."""
        masks, queries = None, None
        if self.pred_masks is not None and self.mask_index is not None:
            first, last = np.searchsorted(self.mask_index[:, 0], [index, index + 1])
            masks, queries = self.pred_masks[first:last], self.mask_index[first:last, 1]
        attention = None if self.attention is None else self.attention.image(index)
        return ImageOutputs(self.pred_logits[index], self.pred_boxes[index], masks, queries, attention)


def best_scores(pred_logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Highest probability among the real classes: [B, Q, C + 1] to [B, Q]."""
    powers = np.exp(pred_logits - pred_logits.max(-1, keepdims=True))
    scores: NDArray[np.float32] = (powers / powers.sum(-1, keepdims=True))[..., :-1].max(-1)
    return scores
