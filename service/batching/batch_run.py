"""What the engine's thread does: a batch runs, and is split by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.preprocess import Batch
from service.process.running_time import TimeSource


@dataclass(frozen=True)
class BatchResult:
    """A batch that ran."""

    outputs: list[ImageOutputs]  # by image
    padding_ratio: float
    pixels: int  # padding included
    engine_seconds: float  # in the engine alone
    seconds: float


def run_batch(
    engine: Engine, canvas: Callable[[], Batch], thresholds: NDArray[np.float32], clock: TimeSource
) -> BatchResult:
    """Run a batch, by this clock, and split it by image. `thresholds` is [B]. Raises what engine or canvas raise."""
    started = clock()
    batch = canvas()
    engine_started = clock()
    raw = engine.infer(batch, thresholds)
    engine_seconds = clock() - engine_started
    outputs = [raw.image(index) for index in range(len(thresholds))]
    if len(outputs) > 1:
        outputs = [_on_its_own(image) for image in outputs]
    seconds = clock() - started
    return BatchResult(outputs, batch.padding_ratio, batch.padding_mask.size, engine_seconds, seconds)


def _on_its_own(outputs: ImageOutputs) -> ImageOutputs:
    """With masks of its own, so that an answer that takes long keeps no other image's masks in memory."""
    masks = outputs.mask_logits
    return outputs if masks is None else replace(outputs, mask_logits=masks.copy())
