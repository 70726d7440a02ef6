"""An engine in a thread of its own: a batch runs there, and is split by image."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
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
    padding_ratio: float
    pixels: int  # padding included
    engine_seconds: float  # in the engine alone
    seconds: float


class EngineThread:
    """Runs one batch after the other, and has the engine opened again. Used on the event loop."""

    def __init__(self, engine: Engine, hang_seconds: float | None, on_hang: Callable[[], object]) -> None:
        """Take an engine; the rest is that of `WatchedThreads`."""
        self.engine: Engine | None = engine
        self._threads = WatchedThreads("engine", 1, hang_seconds, on_hang)

    def busy_seconds(self) -> float:
        """How long it has been at its present batch, or at opening; 0 when it is free. Any thread may ask."""
        return self._threads.busy_seconds()

    async def run(
        self, canvas: Callable[[], Batch], thresholds: NDArray[np.float32], attention: Sequence[bool]
    ) -> BatchResult:
        """Run a batch, see `run_batch`. Raises what engine, canvas or `WatchedThreads.run` raise."""
        if (engine := self.engine) is None:
            raise RuntimeError("there is no engine any more")
        clock = asyncio.get_running_loop().time
        return await self._threads.run(lambda: run_batch(engine, canvas, thresholds, clock, attention))

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


def run_batch(
    engine: Engine,
    canvas: Callable[[], Batch],
    thresholds: NDArray[np.float32],
    clock: TimeSource,
    attention: Sequence[bool],
) -> BatchResult:
    """Run a batch, by this clock, and split it by image. Raises what engine or canvas raise.

    `thresholds` is [B]; `attention` says of each image whether it wants its attention.
    """
    started = clock()
    batch = canvas()
    engine_started = clock()
    raw = engine.infer(batch, thresholds, any(attention))
    engine_seconds = clock() - engine_started
    outputs = [raw.image(index) for index in range(len(thresholds))]
    if len(outputs) > 1:
        outputs = [_on_its_own(image, wants) for image, wants in zip(outputs, attention, strict=True)]
    seconds = clock() - started
    return BatchResult(outputs, batch.padding_ratio, batch.padding_mask.size, engine_seconds, seconds)


def _on_its_own(outputs: ImageOutputs, wants_attention: bool) -> ImageOutputs:
    """With masks and attention of its own, so that an answer that takes long keeps no other image's in memory."""
    masks, attention = outputs.mask_logits, outputs.attention if wants_attention else None
    return replace(
        outputs,
        mask_logits=None if masks is None else masks.copy(),
        attention=None if attention is None else attention.copy(),
    )
