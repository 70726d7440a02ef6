"""Dynamic batching: images that wait at the same time share one inference where that is cheaper.

Each engine has one batch at a time, and whenever one is free, a batch is planned for it from the one queue.
`service/batching/former.py` says who is in the next batch and when it goes, `service/batching/engine_runner.py` runs
it; `service/batching/image_queue.py` is who waits. While all engines are busy, the canvas of the batch that would be
next is made, in a thread of its own, and the batch lies ready at the engine that should be free first, which begins it
by itself (`service/batching/ahead.py`). Until then its images stay in the queue, so whoever comes or goes counts.

The invariant: every image that was submitted gets exactly one answer, its own outputs or an exception,
whatever fails.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model.runtime.engines.engine import Engine
from service.batching.canvas_maker import CanvasMaker
from service.batching.engine_runner import EngineRunner
from service.batching.engine_set import EngineSet
from service.batching.former import QueuePlace
from service.batching.image_queue import ImageQueue
from service.batching.latency_line import LatencyLine
from service.batching.limits import BatchLimits
from service.batching.owners import EngineOwner
from service.batching.waiting import EngineInput, Inference, Waiting
from service.errors import DrainingError, EngineRestartError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import Metrics

logger = logging.getLogger(__name__)

# A canvas of eight images takes a few milliseconds to make. One that others could still join is begun no earlier before
# the engine's expected end than this, or than this share of the batch in the engine.
_AHEAD_SECONDS = 0.02
_AHEAD_SHARE = 0.2


class Batcher:
    """Owns the engines and the queue before them. All but the engines runs on the event loop.

    It is used with the engines of a `LoadedModel`, whether by a service or without one:

        batcher = Batcher(model.engines, Metrics(), limits, lines={}, owner=owner)
        outputs = (await batcher.submit(EngineInput(resized, threshold), deadline)).outputs
        await batcher.close(0)
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        limits: BatchLimits,
        lines: Mapping[str, LatencyLine],
        owner: EngineOwner,
        stall_seconds: float = math.inf,
        hang_seconds: float | None = None,
    ) -> None:
        """Make a batcher, which begins at once.

        Args:
            engines: by what logs and metrics call them; at least one.
            metrics: notes what becomes of batches.
            limits: what a batch must not exceed, while memory lasts.
            lines: what a batch costs on each engine; one without a line counts as one that nobody measured.
            owner: opens an engine again, and is told when none is left.
            stall_seconds: that one batch may take before its engine is stuck: left alone until it ends, while the
                others serve.
            hang_seconds: that one batch may take before its engine is lost; None is for ever.
        """
        self._multiple = limits.canvas_multiple
        self._canvases = CanvasMaker(self._multiple)
        self.engines = EngineSet(engines, metrics, limits, lines, self._canvases, self, stall_seconds, hang_seconds)
        self._owner = owner
        self._waiting = ImageQueue(metrics)
        self._changed = asyncio.Event()
        self._failure: Exception | None = None  # for which no batch can be formed any more
        self._closing = False  # nothing is taken any more
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def submit(self, item: EngineInput, deadline: float) -> Inference:
        """Queue one image and await its answer. To cancel this is to take the image out of the queue.

        Args:
            item: the image.
            deadline: event loop time after which it is no longer given to the engine.

        Raises:
            DeadlineError: the deadline passed while it waited.
            EngineError: the engine raised, and so did another one if there is one.
            DeviceFullError: the engine has no memory for it, or neither has another one.
            EngineRestartError: no engine is left.
            DrainingError: the batcher is closed, or closed before the image's turn.
        """
        if self._closing:
            raise DrainingError("the service is shutting down")
        if self.engines.is_lost:
            raise _none_left()
        loop = asyncio.get_running_loop()
        place = QueuePlace(item.image.shape[0], item.image.shape[1], loop.time(), deadline, self._multiple)
        waiting = Waiting(item, place, loop.create_future())
        self._put_in(waiting)
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:
                self._waiting.take_out(waiting)
                self._changed.set()

    def hurry(self) -> None:
        """Let no batch wait for more images from now on, because few are coming."""
        self._waiting.hurrying = True
        self._changed.set()

    async def close(self, timeout_seconds: float) -> None:
        """Take no more, finish what waits, and after the timeout fail the rest. Safe to call twice."""
        self._closing = True
        self.hurry()
        await asyncio.wait([self._task], timeout=timeout_seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._canvases.close()
        await self.engines.close()

    # What the runners ask of it, which is their RunnerOwner.

    def reopen_engine(self, name: str) -> Engine:
        """See RunnerOwner."""
        return self._owner.reopen_engine(name)

    def pass_on(self, waiting: Waiting, name: str, error: Exception | None) -> bool:
        """See RunnerOwner. An image that two engines were tried on is given to no third: it may be what is wrong."""
        is_second = error is not None and waiting.failed_on is not None
        if self._task.done() or waiting.is_done or is_second:
            return False
        if not self.engines.serve_without(name, waiting.failed_on):
            return False
        if error is not None:
            waiting.failed_on, waiting.error = name, error
        self._put_in(waiting)
        return True

    def engine_free(self) -> None:
        """See RunnerOwner. The next batch goes before anybody looks at the answers of the last."""
        if self._task.done():
            return
        try:
            self._start_due()
        except Exception as error:
            self._failure = error
        self._changed.set()

    def engine_lost(self, name: str) -> None:
        """See RunnerOwner."""
        self._waiting.take_back()
        if self.engines.is_lost:
            self._waiting.fail_all(_none_left())
            self._owner.engine_lost()
            return
        for waiting in self._waiting:  # those whom the others have failed on have nobody left
            if waiting.error is not None and self.engines.last_without(waiting.failed_on):
                waiting.fail(waiting.error)
        self.engines.runners[name].abandon()

    async def _run(self) -> None:
        try:
            while self._waiting or not self._closing or not self.engines.is_idle:
                if self._failure is not None:
                    raise self._failure
                self._changed.clear()
                await self._change(self._start_due())
        except Exception:
            logger.exception("batches can no longer be formed")
            self._waiting.fail_all(DrainingError("the service is shutting down"))
            for runner in self.engines.runners.values():
                runner.lose("batches can no longer be formed")
        finally:
            self._closing = True
            self._waiting.fail_all(DrainingError("the service shut down before the image's turn"))

    def _start_due(self) -> float | None:
        """Start every batch that should go now, and return when there is something to do again, in event loop time."""
        now = asyncio.get_running_loop().time()
        if not self._waiting:
            self._canvases.forget()
        while free := self.engines.free():
            self._waiting.drop_expired(now)
            if self._start_prepared(free):
                continue
            plan, runner = self._waiting.first_plan(free, now)
            if plan is None or plan.go_at > now:
                return None if plan is None else plan.go_at
            plan = self._waiting.share_of(plan, runner, len(free), now)
            members = self._waiting.members(plan, runner)
            self._waiting.leave(members, runner)
            runner.start(members, plan)
        return self._look_ahead(now)

    def _start_prepared(self, free: Sequence[EngineRunner]) -> bool:
        """Follow an engine that has begun what lay ready, or take that back if another engine was free earlier."""
        ahead = self._waiting.ahead
        runner = next((each for each in free if ahead is not None and each.name == ahead.engine), None)
        if ahead is None or runner is None or ahead.did_not_begin:
            self._waiting.take_back()
            return False
        self._waiting.leave(ahead.members, runner)
        runner.start(ahead.members, ahead.plan, ahead)
        return True

    def _look_ahead(self, now: float) -> float | None:
        """While all engines are busy, lay the batch ready that would be next; or return when to do so."""
        if self._waiting.ahead is not None and self._waiting.ahead.did_not_begin:
            self._waiting.take_back()
        runner = self.engines.next_free()
        if runner is None or self._waiting.ahead is not None:
            return None
        free_at = max(runner.free_at, now)
        if (plan := self._waiting.plan(runner, free_at)) is None:
            return None
        begin_at = runner.free_at - min(_AHEAD_SECONDS, _AHEAD_SHARE * runner.expected_seconds)
        if not plan.is_complete and now < begin_at:
            return begin_at
        if now < plan.go_at != free_at:  # it would wait for more images
            return plan.go_at
        members = self._waiting.members(plan, runner)
        self._canvases.prepare([waiting.item.image for waiting in members])
        self._waiting.ahead = runner.prepare(members, plan)
        return None

    def _put_in(self, waiting: Waiting) -> None:
        self._waiting.put_in(waiting)
        self._changed.set()

    async def _change(self, wake_at: float | None) -> None:
        """Sleep until something changes, but no longer than until then (event loop time)."""
        try:
            async with asyncio.timeout_at(wake_at):
                await self._changed.wait()
        except TimeoutError:
            pass  # it is time


def _none_left() -> EngineRestartError:
    return EngineRestartError("the engine has failed, please try again later")
