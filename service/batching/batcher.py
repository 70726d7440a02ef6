"""Dynamic batching: images that wait at the same time share one inference where that is cheaper.

One batch is in the engine at a time. `service/batching/former.py` says who is in the next one and when it goes,
`service/batching/engine_runner.py` runs it; this is who waits. While the engine runs, the canvas of the batch that
would be next is made, in a thread of its own; the images stay in the queue until the engine is free, so whoever comes
or goes meanwhile counts.

The invariant: every image that was submitted gets exactly one answer, its own outputs or an exception,
whatever fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.engine import Engine
from service.batching.canvas_maker import CanvasMaker
from service.batching.engine_runner import EngineOwner, EngineRunner
from service.batching.former import BatchPlan, QueuePlace, note_overtaken, plan_batch
from service.batching.latency_line import LatencyLine
from service.batching.limits import BatchLimits
from service.batching.waiting import EngineInput, Inference, Waiting
from service.errors import DeadlineError, DrainingError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import Metrics

logger = logging.getLogger(__name__)

# A canvas of eight images takes a few milliseconds to make. One that others could still join is begun no earlier before
# the engine's expected end than this, or than this share of the batch in the engine.
_AHEAD_SECONDS = 0.02
_AHEAD_SHARE = 0.2


class Batcher:
    """Owns the engine and the queue before it. All but the engine runs on the event loop."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        limits: BatchLimits,
        line: LatencyLine,
        owner: EngineOwner,
        hang_seconds: float | None = None,
    ) -> None:
        """Make a batcher, which begins at once; all arguments are those of `EngineRunner`."""
        self._multiple = limits.canvas_multiple
        self._canvases = CanvasMaker(self._multiple)
        self.engine = EngineRunner(engine, metrics, limits, line, self._canvases, owner, hang_seconds)
        self._queue_depth = metrics.queue_depth
        self._count_dispatch = metrics.batch_went
        self._waiting: list[Waiting] = []  # oldest first
        self._changed = asyncio.Event()
        self._hurrying = False  # no batch waits for more images any more
        self._closing = False  # nothing is taken any more
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def submit(self, item: EngineInput, deadline: float) -> Inference:
        """Queue one image and await its answer. To cancel this is to take the image out of the queue.

        Args:
            item: the image.
            deadline: event loop time after which it is no longer given to the engine.

        Raises:
            DeadlineError: the deadline passed while it waited.
            EngineError: the engine raised.
            DeviceFullError: the engine has no memory for it.
            DrainingError: the batcher is closed, or closed before the image's turn.
        """
        if self._closing:
            raise DrainingError("the service is shutting down")
        loop = asyncio.get_running_loop()
        place = QueuePlace(item.image.shape[0], item.image.shape[1], loop.time(), deadline, self._multiple)
        waiting = Waiting(item, place, loop.create_future())
        self._waiting.append(waiting)
        self._queue_depth.inc()
        self._changed.set()
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:
                self._take_out(waiting)
                self._changed.set()

    def hurry(self) -> None:
        """Let no batch wait for more images from now on, because few are coming."""
        self._hurrying = True
        self._changed.set()

    async def close(self, timeout_seconds: float) -> None:
        """Take no more, finish what waits, and after the timeout fail the rest. Safe to call twice."""
        self._closing = True
        self.hurry()
        await asyncio.wait([self._task], timeout=timeout_seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._canvases.close()
        self.engine.close()

    async def _run(self) -> None:
        try:
            while (plan := await self._next_plan()) is not None:
                batch = self._leave(plan)
                seconds = self.engine.line.seconds(plan.pixels)
                ahead = asyncio.create_task(self._look_ahead(seconds), name="look ahead")
                try:
                    await self.engine.run(batch)
                finally:
                    ahead.cancel()
        except Exception:
            logger.exception("batches can no longer be formed")
            self.engine.lose("batches can no longer be formed")
        finally:
            self._closing = True
            for waiting in self._waiting:
                waiting.fail(DrainingError("the service shut down before the image's turn"))

    async def _next_plan(self) -> BatchPlan | None:
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

    def _plan(self, start: float) -> BatchPlan:
        places = [waiting.place for waiting in self._waiting]
        return plan_batch(places, self.engine.line, self.engine.limits, start, self._hurrying)

    def _leave(self, plan: BatchPlan) -> list[Waiting]:
        """Take a batch out of the queue."""
        note_overtaken([waiting.place for waiting in self._waiting], plan.members)
        batch = [self._waiting[position] for position in plan.members]
        for waiting in batch:
            self._take_out(waiting)
        self._count_dispatch(plan.reason)
        return batch

    def _take_out(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)
        self._queue_depth.dec()

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
            if waiting.is_done:
                self._take_out(waiting)


def _images(batch: Sequence[Waiting]) -> list[NDArray[np.uint8]]:
    return [waiting.item.image for waiting in batch]
