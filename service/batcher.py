"""Dynamic batching: images that wait at the same time share one inference where that is cheaper.

One batch is in the engine at a time. `service/batch_former.py` says who is in the next one and when it goes; this is
who waits, the threads, and the answers. While the engine runs, the canvas of the batch that would be next is made, in
a thread of its own; the images stay in the queue until the engine is free, so whoever comes or goes meanwhile counts.

The invariant: every image that was submitted gets exactly one answer, its own outputs or an exception,
whatever fails.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.engine import Engine
from model.runtime.preprocess import Batch
from model.runtime.raw_outputs import ImageOutputs
from service.batch_former import Limits, Place, Plan, Reason, note_overtaken, plan_batch
from service.canvas_maker import CanvasMaker
from service.errors import DeadlineError, DrainingError, EngineError
from service.latency_line import UNMEASURED, CorrectedLine, LatencyLine
from service.metrics import Metrics

logger = logging.getLogger(__name__)

# A canvas of eight images takes a few milliseconds to make. One that others could still join is begun no earlier before
# the engine's expected end than this, or than this share of the batch in the engine.
_AHEAD_SECONDS = 0.02
_AHEAD_SHARE = 0.2


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
    infer_seconds: float  # running the batch, and making its canvas where that was not done before


@dataclass(frozen=True)
class _BatchResult:
    outputs: list[ImageOutputs]  # by image
    padding_ratio: float
    pixels: int  # padding included
    engine_seconds: float  # in the engine alone
    seconds: float


@dataclass(eq=False)
class _Waiting:
    """An image that waits, and the future that its submitter awaits, until it is done."""

    item: Item
    place: Place  # its times are the event loop's
    future: asyncio.Future[Inference]

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """Owns the engine's thread and the queue before it. All but the engine runs on the event loop."""

    def __init__(self, engine: Engine, metrics: Metrics, limits: Limits, line: LatencyLine = UNMEASURED) -> None:
        self._engine = engine
        self._metrics = metrics
        self._limits = limits
        self._line = CorrectedLine(line)
        self._waiting: list[_Waiting] = []  # oldest first
        self._changed = asyncio.Event()
        self._hurrying = False  # nobody waits for company any more
        self._closing = False  # nothing is taken any more
        self._running: concurrent.futures.Future[_BatchResult] | None = None  # in the engine's thread
        self._running_since = 0.0  # time.monotonic()
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._canvases = CanvasMaker()
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
        place = Place(item.image.shape[0], item.image.shape[1], loop.time(), deadline)
        waiting = _Waiting(item, place, loop.create_future())
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
        self._canvases.close()
        # A thread that hangs in the engine cannot be ended from here, and must not hold up the rest.
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while (plan := await self._next_plan()) is not None:
            batch = self._leave(plan)
            ahead = asyncio.create_task(self._look_ahead(self._line.line.seconds(plan.pixels)), name="look ahead")
            try:
                await self._infer(batch, plan.reason)
            finally:
                ahead.cancel()

    async def _next_plan(self) -> Plan | None:
        """Sleep until a batch should go, and say which; None once closed and empty."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._drop_expired(loop.time())
            wake_at = None
            if self._waiting:
                plan = self._plan(now := loop.time())
                if plan.go_at <= now:
                    return plan
                wake_at = plan.go_at
            else:
                self._canvases.forget()
                if self._closing:
                    return None
            await self._change(wake_at)

    async def _look_ahead(self, seconds: float) -> None:
        """While the engine is busy, for about so long, make the canvas of the batch that would be next."""
        loop = asyncio.get_running_loop()
        free_at = loop.time() + seconds
        begin_at = free_at - min(_AHEAD_SECONDS, _AHEAD_SHARE * seconds)
        while True:
            self._changed.clear()
            if self._waiting:
                plan = self._plan(max(free_at, loop.time()))
                if plan.is_complete or loop.time() >= begin_at:
                    return self._canvases.prepare(_images([self._waiting[i] for i in plan.members]))
            await self._change(begin_at if self._waiting else None)

    def _plan(self, start: float) -> Plan:
        places = [waiting.place for waiting in self._waiting]
        return plan_batch(places, self._line.line, self._limits, start, self._hurrying)

    def _leave(self, plan: Plan) -> list[_Waiting]:
        """Take a batch out of the queue."""
        note_overtaken([waiting.place for waiting in self._waiting], plan.members)
        batch = [self._waiting[position] for position in plan.members]
        for waiting in batch:
            self._waiting.remove(waiting)
        return batch

    async def _change(self, wake_at: float | None) -> None:
        """Sleep until something changes, but no longer than until then (event loop time)."""
        try:
            async with asyncio.timeout_at(wake_at):
                await self._changed.wait()
        except TimeoutError:
            pass  # it is time

    def _drop_expired(self, now: float) -> None:
        """Fail what is past its deadline, and forget it and what was cancelled: neither reaches the engine."""
        for waiting in list(self._waiting):
            if waiting.place.deadline <= now:
                waiting.fail(DeadlineError("the deadline passed before the image's turn"))
            if waiting.future.done():
                self._waiting.remove(waiting)

    async def _infer(self, batch: Sequence[_Waiting], reason: Reason) -> None:
        """Run one batch and answer everybody in it."""
        went = asyncio.get_running_loop().time()
        self._running_since = time.monotonic()
        try:
            self._metrics.batch_went(reason, len(batch))
            canvas = self._canvases.take(_images(batch))
            thresholds = np.array([waiting.item.mask_threshold for waiting in batch], dtype=np.float32)
            self._running = self._thread.submit(_run_batch, self._engine, canvas, thresholds)
            result = await asyncio.wrap_future(self._running)
        except Exception:
            logger.exception("the engine failed on a batch of %d", len(batch))
            for waiting in batch:
                waiting.fail(EngineError("the engine failed on this batch"))
        else:
            self._metrics.batch_padding_ratio.observe(result.padding_ratio)
            self._line.observe(result.pixels, result.engine_seconds)
            for waiting, outputs in zip(batch, result.outputs, strict=True):
                if not waiting.future.done():  # else its client has gone
                    inference = Inference(outputs, len(batch), went - waiting.place.arrived, result.seconds)
                    waiting.future.set_result(inference)
        finally:
            # Only a cancellation, which ends the service, leaves anybody unanswered here.
            for waiting in batch:
                waiting.fail(DrainingError("the service shut down before the answer"))


def _images(batch: Sequence[_Waiting]) -> list[NDArray[np.uint8]]:
    return [waiting.item.image for waiting in batch]


def _run_batch(
    engine: Engine, canvas: concurrent.futures.Future[Batch], thresholds: NDArray[np.float32]
) -> _BatchResult:
    """Run a batch and split it by image; in the engine's thread. `thresholds` is [B]."""
    started = time.perf_counter()
    batch = canvas.result()
    engine_started = time.perf_counter()
    raw = engine.infer(batch, thresholds)
    engine_seconds = time.perf_counter() - engine_started
    outputs = [raw.image(index) for index in range(len(thresholds))]
    seconds = time.perf_counter() - started
    return _BatchResult(outputs, batch.padding_ratio, batch.padding_mask.size, engine_seconds, seconds)
