"""Recording a golden sample: what a network answers for pictures that need no file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.artifact.golden import GoldenSample
from model.runtime.engines.raw_outputs import NO_MASKS, RawOutputs, best_scores
from model.runtime.preprocess import Batch, make_batch

GOLDEN_SIZES = ((96, 120), (70, 101))  # (height, width)

# A batch, and the mask threshold of each of its images, float32 [B], to the network's outputs.
Infer = Callable[[Batch, NDArray[np.float32]], RawOutputs]


def record_golden(infer: Infer, has_masks: bool) -> GoldenSample:
    """A padded batch of two and what `infer` answers, with masks of a few queries where the network has any."""
    batch = make_batch([fixed_picture(*size) for size in GOLDEN_SIZES])
    thresholds = np.full(len(GOLDEN_SIZES), threshold_of_some(infer, batch) if has_masks else NO_MASKS, np.float32)
    expected = infer(batch, thresholds)
    return GoldenSample(
        images=batch.images,
        padding_mask=batch.padding_mask,
        mask_threshold=thresholds if has_masks else None,
        pred_logits=expected.pred_logits,
        pred_boxes=expected.pred_boxes,
        pred_masks=expected.pred_masks,
        mask_index=expected.mask_index,
    )


def fixed_picture(height: int, width: int) -> NDArray[np.uint8]:
    """A fixed picture, RGB uint8 [height, width, 3], with structure at several scales and no file behind it."""
    rng = np.random.default_rng([height, width])
    layers = []
    for cells in (2, 5, 13):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32))
    return np.clip(sum(layers) / len(layers), 0, 255).astype(np.uint8)


def threshold_of_some(infer: Infer, batch: Batch) -> float:
    """A mask threshold that keeps a few queries, in the widest gap between scores: rounding cannot move any past it."""
    logits = infer(batch, np.full(len(batch.sizes), NO_MASKS, np.float32)).pred_logits
    scores = np.sort(best_scores(logits), axis=None)[::-1]
    if len(scores) < 3:  # too few to choose from: the best one is kept
        return float((scores[0] + (scores[1] if len(scores) > 1 else 0)) / 2)
    top = scores[1:13]
    i = int((top[:-1] - top[1:]).argmax())
    return float((top[i] + top[i + 1]) / 2)
