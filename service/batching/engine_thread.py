"""The engine's thread: whatever may hang runs in it, one thing at a time. A batch runs, and is split by image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.preprocess import Batch

T = TypeVar("T")


class EngineThread:
    """Runs work for the event loop, and says how long it has been at it. Only the event loop uses it."""

    def __init__(self, hang_seconds: float | None, on_hang: Callable[[str], object]) -> None:
        """Start no thread before there is work for it.

        Args:
            hang_seconds: after which work that has not ended counts as hung; None is never.
            on_hang: called on the event loop then, with what is to be said of it.
        """
        self._hang_seconds = hang_seconds
        self._on_hang = on_hang
        self._running: Future[Any] | None = None
        self._running_since = 0.0  # time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    def busy_seconds(self) -> float:
        """How long the thread has been at its present work; 0 when it is free."""
        if self._running is None or self._running.done():
            return 0.0
        return time.monotonic() - self._running_since

    async def run(self, work: Callable[[], T]) -> T:
        """Do some work there. Raises what it raises; what would end the event loop comes as a RuntimeError."""
        running = self._thread.submit(_contained, work)
        self._running, self._running_since = running, time.monotonic()
        timer = None
        if self._hang_seconds is not None:
            reason = f"it has been in one batch for {self._hang_seconds:g} s"
            timer = asyncio.get_running_loop().call_later(self._hang_seconds, self._on_hang, reason)
        try:
            return await asyncio.wrap_future(running)
        finally:
            if timer is not None:
                timer.cancel()
            if running.done():
                self._running = None  # or it would keep what it raised

    def close(self) -> None:
        """Take no more work. A thread that hangs cannot be ended from here, and holds nobody up."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class BatchResult:
    """A batch that ran."""

    outputs: list[ImageOutputs]  # by image
    padding_ratio: float
    pixels: int  # padding included
    engine_seconds: float  # in the engine alone
    seconds: float


def run_batch(engine: Engine, canvas: Future[Batch], thresholds: NDArray[np.float32]) -> BatchResult:
    """Run a batch and split it by image. `thresholds` is [B]. Raises what the engine or the canvas raises."""
    started = time.perf_counter()
    batch = canvas.result()
    engine_started = time.perf_counter()
    raw = engine.infer(batch, thresholds)
    engine_seconds = time.perf_counter() - engine_started
    outputs = [raw.image(index) for index in range(len(thresholds))]
    if len(outputs) > 1:
        outputs = [_on_its_own(image) for image in outputs]
    seconds = time.perf_counter() - started
    return BatchResult(outputs, batch.padding_ratio, batch.padding_mask.size, engine_seconds, seconds)


def _contained(work: Callable[[], T]) -> T:
    """Do the work; what would end the event loop if it were raised there (SystemExit) becomes a RuntimeError."""
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__} in the engine's thread") from error


def _on_its_own(outputs: ImageOutputs) -> ImageOutputs:
    """With masks of its own, so that an answer that takes long keeps no other image's masks in memory."""
    masks = outputs.mask_logits
    return outputs if masks is None else replace(outputs, mask_logits=masks.copy())
