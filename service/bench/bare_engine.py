"""The limit of a service: its engine in a bare loop, on pictures that are decoded and resized already.

The engine lives in a process of its own, as the service's does, so that neither disturbs the other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context, parent_process

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.engine import Engine, is_gpu
from model.runtime.preprocess import Batch, make_batch
from service.images.answers import TASKS, TaskName
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import load_model
from service.process.trace import Trace
from service.settings import read_settings

_WARM_UPS = 2


@dataclass(frozen=True)
class _Loop:
    """An engine and what it is run on."""

    engine: Engine
    batches: Sequence[Batch]
    mask_threshold: float

    def run(self, batch: Batch) -> float:
        """Seconds of one batch."""
        thresholds: NDArray[np.float32] = np.full(len(batch.sizes), self.mask_threshold, dtype=np.float32)
        started = time.perf_counter()
        self.engine.infer(batch, thresholds)
        return time.perf_counter() - started


# Of the process that runs the engine, and of no other.
_LOOPS: list[_Loop] = []


class BareEngine:
    """Handle of a loop in another process, over batches of so many images."""

    def __init__(self, process: ProcessPoolExecutor, batch_size: int) -> None:
        self.batch_size = batch_size
        self._process = process

    def seconds(self, *, seconds: float | None = None, count: int | None = None) -> list[float]:
        """Run for so many seconds or batches, whichever is over first, and return the seconds of each batch."""
        return self._process.submit(_measure, seconds, count).result()

    def cpu_seconds(self) -> float:
        """Processor time that the process has taken so far."""
        return self._process.submit(time.process_time).result()


@contextmanager
def bare_engine(
    settings: Mapping[str, str],
    pictures: Sequence[bytes],
    task: TaskName,
    threshold: float | None,
    batch_size: int | None = None,
) -> Iterator[BareEngine]:
    """Load a model as the service would, in a process that ends with the block, and make its batches.

    Args:
        settings: of the service, by name, as `read_settings` takes them.
        pictures: encoded; taken in their order.
        task: what the engine is asked for.
        threshold: of /segment; the model's own if None.
        batch_size: images in each batch; if None, one on a CPU, where batches save nothing, and the service's
            largest batch on a GPU.

    Raises:
        SettingsError, ArtifactError, DeviceError: the model cannot be loaded.
        ImageError: a picture cannot be decoded.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        opening = process.submit(_open, dict(settings), list(pictures), task, threshold, batch_size)
        yield BareEngine(process, opening.result())


def _open(
    settings: dict[str, str], pictures: list[bytes], task: TaskName, threshold: float | None, batch_size: int | None
) -> int:
    """Make this process's loop, and return the size of its batches."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    values = read_settings(settings)
    model = load_model(values)
    rules = ImageRules.of(values, model.metadata)
    images = [prepare(picture, "", rules, Trace()).resized for picture in pictures]
    size = batch_size or (values.max_batch_size if is_gpu(model.device) else 1)
    batches = [
        make_batch([images[(first + step) % len(images)] for step in range(size)], model.canvas_multiple)
        for first in range(0, len(images), size)
    ]
    loop = _Loop(model.engine, batches, TASKS[task].of(model.metadata, threshold).mask_threshold)
    for batch in batches[:_WARM_UPS]:
        loop.run(batch)
    _LOOPS.append(loop)
    return size


def _end_with_parent() -> None:
    """End this process when the one that started it is gone; it would otherwise wait for work that never comes."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(seconds: float | None, count: int | None) -> list[float]:
    (loop,) = _LOOPS
    times: list[float] = []
    end = time.perf_counter() + (float("inf") if seconds is None else seconds)
    for batch in cycle(loop.batches):
        times.append(loop.run(batch))
        if time.perf_counter() >= end or len(times) == count:
            return times
    return times
