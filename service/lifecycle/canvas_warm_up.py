"""Showing a GPU every canvas before the service is ready, in a bounded time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from model.runtime.engines.canvases import CanvasSize
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS
from model.runtime.preprocess import Batch
from service.process.running_time import TimeSource

logger = logging.getLogger(__name__)


def warm_up_order(
    canvases: Sequence[CanvasSize], max_batch_size: int, max_batch_pixels: int
) -> list[tuple[int, CanvasSize]]:
    """What to run: numbers of images, each with a canvas.

    Each canvas is run full and with one image. The largest go first, so that the memory of all is reserved in one
    piece, but for the smallest of all, which is second: TensorRT builds for the range of sizes it has seen, and with
    these two has seen the whole of it.

    Args:
        canvases: largest first.
        max_batch_size: images in the largest batch.
        max_batch_pixels: padded pixels in the largest batch; one image may have more.
    """
    full = [(max(1, min(max_batch_size, max_batch_pixels // (h * w))), (h, w)) for h, w in canvases]
    alone = [(1, canvas) for images, canvas in full if images > 1]
    by_pixels = sorted([*full, *alone], key=lambda run: -run[0] * run[1][0] * run[1][1])
    return by_pixels if len(by_pixels) < 3 else [by_pixels[0], by_pixels[-1], *by_pixels[1:-1]]


def warm_canvases(
    engine: Engine,
    order: Sequence[tuple[int, CanvasSize]],
    budget_seconds: float,
    clock: TimeSource = time.perf_counter,
) -> int:
    """Run blank batches in this order until the time is up by this clock, and return how many ran.

    One image is run with the masks of all queries, several without any. Where memory runs out nothing is lost yet: the
    batcher splits such a batch.

    Raises:
        DeviceError: a batch does not run for another reason.
    """
    started = clock()
    done = 0
    for images, canvas in order:
        if clock() - started > budget_seconds:
            break
        _run_blank(engine, images, canvas)
        done += 1
    seconds = clock() - started
    logger.info("%d of %d canvases were warmed up in %.1f s", done, len(order), seconds)
    if done < len(order):
        logger.warning("%d canvases are still cold (see warm_up_ms), and slower at first", len(order) - done)
    return done


def _run_blank(engine: Engine, images: int, canvas: CanvasSize) -> None:
    shape = (images, *canvas)
    batch = Batch(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_), (canvas,) * images)
    threshold = np.full(images, ALL_MASKS if images == 1 else NO_MASKS, np.float32)
    what = f"a batch of {images} x {canvas[0]} x {canvas[1]} pixels"
    try:
        engine.infer(batch, threshold)
    except DeviceMemoryError as error:
        logger.warning("%s does not fit: %s", what, error)
    except Exception as error:
        raise DeviceError(f"{what} does not run on {engine.device} ({type(error).__name__})") from error
