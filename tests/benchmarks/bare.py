"""The engine alone over images that are prepared, in the batches that are best for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.preprocess import Batch, make_batch
from service.images.answers import TASKS, TaskName
from service.lifecycle.loading import LoadedModel

BATCH_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Cost:
    """What some work took."""

    clock: float  # seconds
    processor: float  # seconds, of all threads


def cost(work: Callable[[], object]) -> Cost:
    """Do some work."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - clock, time.process_time() - processor)


def bare_cost(
    model: LoadedModel, images: Sequence[NDArray[np.uint8]], task: TaskName, count: int, sizes: Sequence[int]
) -> Cost:
    """What the engine takes for `count` images, in the best of these sizes of batches.

    Each size runs its share of them, and the best is taken for all, by the clock and by the processor.

    Args:
        model: whose engine it is.
        images: [h, w, 3], as the network takes them, again and again.
        task: what is asked of them.
        count: images.
        sizes: images in a batch.
    """
    threshold = TASKS[task].of(model.metadata, None).mask_threshold
    costs = []
    for size in sizes:
        groups = [images[begin : begin + size] for begin in range(0, len(images) - size + 1, size)]
        batches = [make_batch(group, model.canvas_multiple) for group in groups]
        for first in {batch.images.shape: batch for batch in batches}.values():  # which takes longer
            model.engine.infer(first, np.full(size, threshold, dtype=np.float32))
        rounds = max(1, count // len(sizes) // size)

        def loop(size: int = size, rounds: int = rounds, batches: Sequence[Batch] = batches) -> None:
            for number in range(rounds):
                model.engine.infer(batches[number % len(batches)], np.full(size, threshold, dtype=np.float32))

        taken = cost(loop)
        costs.append(Cost(*(part * count / rounds / size for part in (taken.clock, taken.processor))))
    return Cost(min(each.clock for each in costs), min(each.processor for each in costs))
