"""Dynamic batching: images that wait at the same time share one inference.

One batch is in the engine at a time. When the engine is free, whatever waits goes next, up to
`max_batch_size`; an idle service therefore answers at once, and a busy one fills its batches by itself. With
`max_queue_delay_ms` the oldest image waits that long for company.

The invariant: every image that was submitted gets exactly one answer, its own outputs or an exception,
whatever fails.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.runtime.engine import Engine
from model.runtime.preprocess import make_batch
from model.runtime.raw_outputs import ImageOutputs
from service.errors import DeadlineError, DrainingError, EngineError
from service.metrics import Metrics

logger = logging.getLogger(__name__)

# Why a batch went: it was full; the engine was free; the oldest image had waited long enough; the end is near.
Reason = Literal["full", "idle", "delay", "drain"]


@dataclass(frozen=True)
class Item:
    """One image for the engine."""

    image: NDArray[np.uint8]  # [h, w, 3], RGB, resized
    mask_threshold: float  # see the graph's input of that name


@dataclass(frozen=True)
class Inference:
    """What the engine said about one image, and what it took."""

    outputs: ImageOutputs
    batch_size: int  # images in the batch
    queue_seconds: float  # from submission until its batch went
    infer_seconds: float  # building the batch and running it


@dataclass(frozen=True)
class _BatchResult:
    outputs: list[ImageOutputs]  # by image
    padding_ratio: float
    seconds: float


@dataclass(eq=False)
class _Waiting:
    """An image that waits, and the future that its submitter awaits, until it is done."""

    item: Item
    deadline: float  # event loop time
    arrived: float  # event loop time
    future: asyncio.Future[Inference]

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """Owns the engine's thread and the queue before it. All but the engine runs on the event loop."""

    def __init__(self, engine: Engine, metrics: Metrics, max_batch_size: int, max_queue_delay_ms: float) -> None:
        self._engine = engine
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self._max_delay = max_queue_delay_ms / 1000  # seconds
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._hurrying = False  # nobody waits for company any more
        self._closing = False  # nothing is taken any more
        self._running: concurrent.futures.Future[_BatchResult] | None = None  # in the engine's thread
        self._running_since = 0.0  # time.monotonic()
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._task = asyncio.create_task(self._run(), name="batcher")
        metrics.queue_depth.set_function(lambda: len(self._waiting))

    async def submit(self, item: Item, deadline: float) -> Inference:
        """Queue one image and await its answer. To cancel this is to take the image out of the queue.

        Args:
            item: the image.
            deadline: event loop time after which it is no longer given to the engine.

        Raises:
            DeadlineError: the deadline passed while it waited.
            EngineError: the engine raised.
            DrainingError: the batcher is closed, or closed before the image's turn.
        """
        if self._closing:
            raise DrainingError("the service is shutting down")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, deadline, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._changed.set()
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._changed.set()

    def busy_seconds(self) -> float:
        """How long the engine has been in its present batch; 0 when it is free."""
        if self._running is None or self._running.done():
            return 0.0
        return time.monotonic() - self._running_since

    def hurry(self) -> None:
        """Let no image wait for company from now on, because little more is coming."""
        self._hurrying = True
        self._changed.set()

    async def close(self, timeout_seconds: float) -> None:
        """Take no more, finish what waits, and after the timeout fail the rest. Safe to call twice."""
        self._closing = True
        self.hurry()
        await asyncio.wait([self._task], timeout=timeout_seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for waiting in self._waiting:
            waiting.fail(DrainingError("the service shut down before the image's turn"))
        # A thread that hangs in the engine cannot be ended from here, and must not hold up the rest.
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while (reason := await self._next_reason()) is not None:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch_size))]
            await self._infer(batch, reason)

    async def _next_reason(self) -> Reason | None:
        """Sleep until a batch should go and say why; None once closed and empty."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._drop_expired(loop.time())
            reason, wake_at = self._decide(loop.time())
            if reason is not None or (self._closing and not self._waiting):
                return reason
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._changed.wait()
            except TimeoutError:
                pass  # the oldest image has waited long enough

    def _decide(self, now: float) -> tuple[Reason | None, float | None]:
        """Why a batch should go now; or, if none should, when to look again unless something changes."""
        if not self._waiting:
            return None, None
        if len(self._waiting) >= self._max_batch_size:
            return "full", None
        if self._hurrying:
            return "drain", None
        if self._max_delay == 0:
            return "idle", None
        patience_ends = self._waiting[0].arrived + self._max_delay
        return ("delay", None) if now >= patience_ends else (None, patience_ends)

    def _drop_expired(self, now: float) -> None:
        """Fail what is past its deadline, and forget it and what was cancelled: neither reaches the engine."""
        for waiting in list(self._waiting):
            if waiting.deadline <= now:
                waiting.fail(DeadlineError("the deadline passed before the image's turn"))
            if waiting.future.done():
                self._waiting.remove(waiting)

    async def _infer(self, batch: Sequence[_Waiting], reason: Reason) -> None:
        """Run one batch and answer everybody in it."""
        went = asyncio.get_running_loop().time()
        self._running_since = time.monotonic()
        try:
            self._metrics.batch_went(reason, len(batch))
            self._running = self._thread.submit(_run_batch, self._engine, [waiting.item for waiting in batch])
            result = await asyncio.wrap_future(self._running)
        except Exception:
            logger.exception("the engine failed on a batch of %d", len(batch))
            for waiting in batch:
                waiting.fail(EngineError("the engine failed on this batch"))
        else:
            self._metrics.batch_padding_ratio.observe(result.padding_ratio)
            for waiting, outputs in zip(batch, result.outputs, strict=True):
                if not waiting.future.done():  # else its client has gone
                    inference = Inference(outputs, len(batch), went - waiting.arrived, result.seconds)
                    waiting.future.set_result(inference)
        finally:
            # Only a cancellation, which ends the service, leaves anybody unanswered here.
            for waiting in batch:
                waiting.fail(DrainingError("the service shut down before the answer"))


def _run_batch(engine: Engine, items: Sequence[Item]) -> _BatchResult:
    """Build a batch, run it, and split it by image; in the engine's thread."""
    started = time.perf_counter()
    batch = make_batch([item.image for item in items])
    thresholds = np.array([item.mask_threshold for item in items], dtype=np.float32)
    raw = engine.infer(batch, thresholds)
    outputs = [raw.image(index) for index in range(len(items))]
    return _BatchResult(outputs, batch.padding_ratio, time.perf_counter() - started)
