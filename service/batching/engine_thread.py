"""An engine in a thread of its own: a batch runs there, and is split by image."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.preprocess import Batch
from service.process.running_time import TimeSource
from service.process.watched_threads import WatchedThreads


@dataclass(frozen=True)
class BatchResult:
    """A batch that ran."""

    outputs: list[ImageOutputs]  # by image
    began: float  # seconds, by the event loop's clock
    padding_ratio: float
    pixels: int  # padding included
    engine_seconds: float  # in the engine alone
    seconds: float


@dataclass(frozen=True)
class BatchWork:
    """A batch that is to run."""

    canvas: Callable[[], Batch]  # of its images
    thresholds: NDArray[np.float32]  # [B]
    attention: Sequence[bool]  # of each image, whether it wants its attention


class EngineThread:
    """Runs one batch after the other, and has the engine opened again. Used on the event loop."""

    def __init__(self, engine: Engine, hang_seconds: float | None, on_hang: Callable[[], object]) -> None:
        """Take an engine; the rest is that of `WatchedThreads`."""
        self.engine: Engine | None = engine
        self._last_succeeded = False  # whether the last batch did; the engine's thread alone uses it
        self._threads = WatchedThreads("engine", 1, hang_seconds, on_hang)

    def busy_seconds(self) -> float:
        """How long it has been at its present batch, or at opening; 0 when it is free. Any thread may ask."""
        return self._threads.busy_seconds()

    def begin(self, work: BatchWork) -> Future[BatchResult | None]:
        """Run a batch, see `run_batch`, whose result is never None.

        Raises:
            DrainingError, MemoryError: see `WatchedThreads.run`.
            RuntimeError: there is no engine any more.
        """
        return self._threads.begin(self._running(work))

    def begin_next(self, work: BatchWork, is_wanted: Callable[[], bool]) -> Future[BatchResult | None]:
        """Run a batch as soon as the present one has ended, without waiting for the event loop to see that.

        Args:
            work: the batch.
            is_wanted: asked when it is its turn, in the engine's thread.

        Returns:
            What can be cancelled until the batch begins. Its result is None where the batch did not run, because it was
            wanted no more, or the one before it failed or did not run either and may be tried again first.

        Raises:
            DrainingError, MemoryError, RuntimeError: see `begin`.
        """
        run = self._running(work)

        def run_or_not() -> BatchResult | None:
            self._last_succeeded = self._last_succeeded and is_wanted()
            return run() if self._last_succeeded else None

        return self._threads.begin(run_or_not)

    async def result(self, begun: Future[BatchResult | None]) -> BatchResult | None:
        """What became of a batch. Raises what engine, canvas or `WatchedThreads.result` raise."""
        return await self._threads.result(begun)

    def _running(self, work: BatchWork) -> Callable[[], BatchResult | None]:
        if (engine := self.engine) is None:
            raise RuntimeError("there is no engine any more")
        clock = asyncio.get_running_loop().time

        def run() -> BatchResult:
            self._last_succeeded = False
            result = run_batch(engine, work, clock)
            self._last_succeeded = True
            return result

        return run

    async def reopen(self, open_again: Callable[[], Engine]) -> None:
        """Let the engine go and take the one that is opened in the thread. Raises what that raises."""
        self.engine = None  # its memory has to be free before there is another

        def collect_and_open() -> Engine:
            gc.collect()  # what failed may still be held in a traceback's circle
            return open_again()

        self.engine = await self._threads.run(collect_and_open)

    def close(self) -> None:
        """Run nothing more, and let the engine go; only a thread that hangs in it keeps it."""
        self._threads.close()
        self.engine = None


def run_batch(engine: Engine, work: BatchWork, clock: TimeSource) -> BatchResult:
    """Run a batch, by this clock, and split it by image. Raises what engine or canvas raise."""
    began = clock()
    batch = work.canvas()
    engine_began = clock()
    raw = engine.infer(batch, work.thresholds, any(work.attention))
    engine_seconds = clock() - engine_began
    outputs = [raw.image(index) for index in range(len(work.thresholds))]
    if len(outputs) > 1:
        outputs = [_on_its_own(image, wants) for image, wants in zip(outputs, work.attention, strict=True)]
    return BatchResult(
        outputs, began, batch.padding_ratio, batch.padding_mask.size, engine_seconds, seconds=clock() - began
    )


def _on_its_own(outputs: ImageOutputs, wants_attention: bool) -> ImageOutputs:
    """With masks and attention of its own, so that an answer that takes long keeps no other image's in memory."""
    masks, attention = outputs.mask_logits, outputs.attention if wants_attention else None
    return replace(
        outputs,
        mask_logits=None if masks is None else masks.copy(),
        attention=None if attention is None else attention.copy(),
    )
