"""The graph's outputs as they leave an engine, for a batch and for one image of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_MASKS = 2.0  # a mask_threshold that no probability exceeds
ALL_MASKS = -1.0  # a mask_threshold that every probability exceeds


@dataclass(frozen=True)
class ImageOutputs:
    """What the network says about one image of a batch."""

    pred_logits: NDArray[np.float32]  # [Q, C + 1]
    pred_boxes: NDArray[np.float32]  # [Q, 4], cxcywh in [0, 1]
    mask_logits: NDArray[np.float32] | None  # [k, canvas height / stride, canvas width / stride]
    query_index: NDArray[np.int64] | None  # [k], ascending: the query of each mask


@dataclass(frozen=True)
class RawOutputs:
    """The graph's outputs for a batch. The last two are None for a detection model."""

    pred_logits: NDArray[np.float32]  # [B, Q, C + 1], the last class is no-object
    pred_boxes: NDArray[np.float32]  # [B, Q, 4], cxcywh in [0, 1] of the unpadded image
    pred_masks: NDArray[np.float32] | None  # [kept, H / stride, W / stride], logits
    mask_index: NDArray[np.int64] | None  # [kept, 2]: batch and query of each mask, in ascending order

    def image(self, index: int) -> ImageOutputs:
        """The part that belongs to one image; its arrays share memory with the batch's."""
        masks, queries = None, None
        if self.pred_masks is not None and self.mask_index is not None:
            first, last = np.searchsorted(self.mask_index[:, 0], [index, index + 1])
            masks, queries = self.pred_masks[first:last], self.mask_index[first:last, 1]
        return ImageOutputs(self.pred_logits[index], self.pred_boxes[index], masks, queries)


def best_scores(pred_logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Highest probability among the real classes: [B, Q, C + 1] to [B, Q]."""
    powers = np.exp(pred_logits - pred_logits.max(-1, keepdims=True))
    scores: NDArray[np.float32] = (powers / powers.sum(-1, keepdims=True))[..., :-1].max(-1)
    return scores
