"""Measuring an engine's latency line before it is ready, in a bounded time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import CANVAS_MULTIPLE, make_batch
from model.runtime.resize_rule import ResizeRule
from service.batching.latency_line import LatencyLine, fit_line
from service.process.running_time import TimeSource

logger = logging.getLogger(__name__)

_TYPICAL_SIZE = (480, 640)  # pixels, (height, width): the commonest in COCO, and every phone's aspect ratio
_ROUNDS = 3  # timed runs of each number of images


def measure_line(
    engine: Engine,
    rule: ResizeRule,
    max_batch_size: int,
    max_batch_pixels: int,
    budget_seconds: float,
    multiple: int = CANVAS_MULTIPLE,
    clock: TimeSource = time.perf_counter,
) -> LatencyLine:
    """Time batches of 1, 2, 4, ... images of a typical size, without masks, and fit a line.

    Args:
        engine: what is measured.
        rule: how large the network sees an image.
        max_batch_size: images in the largest batch.
        max_batch_pixels: padded pixels in the largest batch; one image is measured whatever it has.
        budget_seconds: for all runs together. The first is never left out; no other begins that is expected to pass
            the budget, so an engine that takes longer than that for one image is measured for one image only, and
            then counted as one that batching does not help.
        multiple: pixels that the sides of a batch divide by.
        clock: times them.

    Raises:
        DeviceError: a batch of a size that the limits allow does not run.
    """
    height, width = rule.size(*_TYPICAL_SIZE)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    pixels = make_batch([image], multiple).padding_mask.size

    def run(images: int) -> float:
        batch = make_batch([image] * images, multiple)
        started = clock()
        try:
            engine.infer(batch, np.full(images, NO_MASKS, dtype=np.float32))
        except Exception as error:
            raise DeviceError(
                f"a batch of {images} x {height} x {width} pixels does not run on {engine.device} "
                f"({type(error).__name__}); lower max_batch_size or max_batch_pixels"
            ) from error
        return clock() - started

    largest = max(1, min(max_batch_size, max_batch_pixels // pixels))
    sizes = [2**power for power in range(largest.bit_length())]
    found = time_batches(run, sizes, budget_seconds)
    line = fit_line([(images * pixels, seconds) for images, seconds in found.items()])
    timings = ", ".join(f"{images}: {1000 * seconds:.1f} ms" for images, seconds in found.items())
    logger.info("on %s, batches of %d x %d pixels take %s", engine.device, height, width, timings)
    logger.info("that is %.1f ms and %.1f ms a megapixel", 1e3 * line.fixed, 1e9 * line.per_pixel)
    return line


def time_batches(run: Callable[[int], float], sizes: Sequence[int], budget_seconds: float) -> dict[int, float]:
    """Median seconds of a batch, by its number of images, for as many of the sizes as the budget has room for.

    Each size is run once to warm it up and once timed, smallest first, and then all of them in turns, so that a
    machine that is busy for a moment does not slow down one size alone. A warm-up counts only where there was no time
    for more.

    Args:
        run: runs a batch of so many images and returns its seconds.
        sizes: numbers of images, rising.
        budget_seconds: no run begins that is expected to pass it, but for the very first.
    """
    runs: dict[int, list[float]] = {}
    left = budget_seconds
    for size in [size for size in sizes for _ in range(2)] + list(sizes) * (_ROUNDS - 1):
        # A size that has not run takes at worst as long for each image as the size that did best.
        best = min((min(seconds) / images for images, seconds in runs.items()), default=0.0)
        expected = min(runs.get(size, [size * best]))
        if runs and expected > left:
            continue
        seconds = run(size)
        left -= seconds
        runs.setdefault(size, []).append(seconds)
    return {size: median(seconds[1:] or seconds) for size, seconds in runs.items()}
