"""One engine, and what is done when it fails.

- Memory runs out in a batch: its halves are run instead, down to single images, and for a while no batch is that large.
- A batch fails for any other reason: each of its images is run once more, alone, so that one that the engine cannot
  take does not spoil the others.
- An image fails alone: another engine tries it, if there is one that serves, and else it gets the error. When several
  in a row do, the session itself may be broken, and is opened again, once; only a success shows that this helped.
- The engine is stuck in a batch: it is left alone until that ends, and what it has goes to others.
- The engine hangs for too long, or cannot be opened again: it is lost, and whoever forms batches is told.

The invariant: everybody in a batch is answered, with their own outputs or an exception, or passed on, whatever fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.engine import Engine
from service.batching.ahead import Ahead
from service.batching.canvas_maker import CanvasMaker
from service.batching.engine_thread import BatchResult, BatchWork, EngineThread
from service.batching.former import BatchPlan
from service.batching.latency_line import CorrectedLine, LatencyLine
from service.batching.limits import BatchCeiling, BatchLimits
from service.batching.owners import RunnerOwner
from service.batching.reopening import Reopening
from service.batching.trouble import Trouble, error_of_one, halves, hangs
from service.batching.waiting import Inference, Members, Waiting
from service.errors import DeadlineError, DrainingError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import DeviceMetrics

logger = logging.getLogger(__name__)


class EngineRunner:
    """Runs one batch at a time on one engine. Used on the event loop only."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        metrics: DeviceMetrics,
        limits: BatchLimits,
        line: LatencyLine,
        canvases: CanvasMaker,
        owner: RunnerOwner,
        stall_seconds: float,
        hang_seconds: float | None,
    ) -> None:
        """Make a runner.

        Args:
            name: of the engine, in logs and metrics.
            engine: what runs batches.
            metrics: notes what becomes of them.
            limits: what a batch must not exceed, while memory lasts.
            line: what a batch costs, as it was measured.
            canvases: makes batches of images.
            owner: gives the batches.
            stall_seconds: that one batch may take before the engine is stuck, and left alone until it ends.
            hang_seconds: that one batch may take before the engine is lost; None is for ever.
        """
        self.name = name
        self.is_lost = False
        self.free_at = 0.0  # when it should have ended its batch, by the loop's time; while it is free, when it had
        self.expected_seconds = 0.0  # of its batch
        self._metrics = metrics
        self._ceiling = BatchCeiling(limits)
        self._line = CorrectedLine(line)
        self._canvases = canvases
        self._owner = owner
        self._task: asyncio.Task[None] | None = None
        self._owed: set[Waiting] = set()  # of its batch, whom nobody else answers
        self._begun: Future[BatchResult | None] | None = None  # of its whole batch, until that has ended
        self._is_in_trouble = False  # whether its batch failed, and is tried again
        self._stall_seconds = stall_seconds
        reason = f"it has been in one batch for {hang_seconds:g} s" if hang_seconds is not None else ""
        self._thread = EngineThread(engine, hang_seconds, lambda: self.lose(reason))
        self._reopening = Reopening(name, self._thread, metrics, owner.reopen_engine)
        metrics.may_have(limits.max_batch_size)

    @property
    def limits(self) -> BatchLimits:
        """What a batch must not exceed at present."""
        return self._ceiling.limits

    @property
    def line(self) -> LatencyLine:
        """What a batch costs at present."""
        return self._line.line

    @property
    def is_idle(self) -> bool:
        """Whether it has no batch."""
        return self._task is None

    @property
    def is_free(self) -> bool:
        """Whether it takes a batch now."""
        return self._task is None and not self.is_lost

    @property
    def is_reopening(self) -> bool:
        """Whether it is being opened again. Any thread may ask."""
        return self._reopening.is_under_way

    @property
    def is_stalled(self) -> bool:
        """Whether it is stuck in a batch, or in being opened again. Any thread may ask."""
        return not self.is_lost and self.busy_seconds() > self._stall_seconds

    @property
    def serves(self) -> bool:
        """Whether it takes a batch now or, as far as anybody can tell, soon. Any thread may ask."""
        return not (self.is_lost or self.is_reopening or self.is_stalled)

    def busy_seconds(self) -> float:
        """How long the engine has been in its present batch; 0 when it is free."""
        return self._thread.busy_seconds()

    def start(self, batch: Members, plan: BatchPlan, prepared: Ahead | None = None) -> None:
        """Begin to answer everybody in a batch, in as few inferences as the engine manages; it may be prepared."""
        self.expected_seconds = self.line.seconds(plan.pixels)
        self.free_at = asyncio.get_running_loop().time() + self.expected_seconds
        self._metrics.batch_went(plan.reason)
        self._owed = set(batch)
        with suppress(DrainingError, MemoryError, RuntimeError):  # it comes again where it is handled
            self._begun = self._thread.begin(self._work(batch)) if prepared is None else prepared.begun
        self._canvases.spent([waiting.item.image for waiting in batch])
        self._task = asyncio.create_task(self._run(batch), name=f"engine {self.name}")

    def prepare(self, batch: Members, plan: BatchPlan) -> Ahead | None:
        """Begin a batch as soon as the present one has succeeded, unless somebody in it has gone or is late by then.

        None where nothing can be prepared, because the present one is in trouble.
        """
        clock = asyncio.get_running_loop().time
        if not self._is_in_trouble:
            with suppress(DrainingError, MemoryError, RuntimeError):
                wanted = lambda: all(waiting.is_wanted(clock()) for waiting in batch)  # noqa: E731
                return Ahead(self.name, batch, plan, self._thread.begin_next(self._work(batch), wanted))
        return None

    def lose(self, reason: str) -> None:
        """Give the engine up."""
        if not self.is_lost:
            self.is_lost = True
            logger.critical("the engine %s is lost: %s", self.name, reason)
            self._owner.engine_lost(self.name)

    def abandon(self) -> None:
        """Have others answer its batch, as far as they can, and wait for it no longer."""
        self._pass_on_all(hangs())
        for waiting in self._owed:
            waiting.fail(hangs())
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Fail who still waits, run nothing more, and let the engine go; only a thread that hangs in it keeps it."""
        self.is_lost = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.close()

    async def _run(self, batch: Members) -> None:
        loop = asyncio.get_running_loop()
        stall = loop.call_later(self._stall_seconds, self._leave_alone)
        parts: deque[Members] = deque([batch])
        try:
            while parts:
                parts.extendleft(reversed(await self._run_part(parts.popleft())))
        finally:
            stall.cancel()
            # Only a cancellation, which ends the service, leaves anybody unanswered here.
            for waiting in self._owed:
                waiting.fail(DrainingError("the service shut down before the answer"))
            self._owed = set()
            self._task = None
            self._is_in_trouble = False
            self.free_at = loop.time()
            self._owner.engine_free()

    async def _run_part(self, part: Members) -> list[Members]:
        """Answer images, or return the smaller parts in which they are to be tried again."""
        if self._begun is None:
            part = self._still_wanted(part)
            if not part:
                return []
            if len(part) > self.limits.max_batch_size:  # which was lowered since the batch was formed
                return halves(part)
        trouble = await self._infer(part)
        if trouble is None:
            return []
        if trouble == "did not begin":
            return [part]
        self._is_in_trouble = True
        if len(part) > 1:
            return self._smaller(part, trouble)
        self._give_up(part[0], error_of_one(trouble))
        await self._failed_on_one(trouble)
        return []

    async def _infer(self, members: Members) -> Trouble | Literal["did not begin"] | None:
        """Run and answer images, or say why that failed. The exception ends here, for it holds on to the engine."""
        try:
            result = await self._result(members)
        except (DeviceMemoryError, MemoryError) as error:
            logger.warning("memory ran out in a batch of %d on %s: %s", len(members), self.name, str(error))
            return "memory"
        except Exception:
            logger.exception("the engine %s failed on a batch of %d", self.name, len(members))
            return "error"
        if result is None:
            return "did not begin"
        self._note_success(result)
        for waiting, outputs in zip(members, result.outputs, strict=True):
            # Right, too, where it came so late that another engine has the image by now: who is first answers it.
            queued = result.began - waiting.place.arrived
            waiting.answer(Inference(outputs, self.name, len(members), queued, result.seconds))
            self._owed.discard(waiting)
        return None

    async def _result(self, members: Members) -> BatchResult | None:
        """What becomes of images that run, or begin now; None if they were prepared and did not begin."""
        if self._begun is None:
            return await self._thread.result(self._thread.begin(self._work(members)))
        try:
            return await self._thread.result(self._begun)
        finally:
            self._begun = None

    def _work(self, members: Members) -> BatchWork:
        images = [waiting.item.image for waiting in members]
        thresholds = np.array([waiting.item.mask_threshold for waiting in members], dtype=np.float32)
        return BatchWork(self._canvases.of(images), thresholds, [waiting.item.attention for waiting in members])

    def _note_success(self, result: BatchResult) -> None:
        self._reopening.succeeded()
        self._metrics.batch_succeeded(len(result.outputs), result.padding_ratio)
        self._line.observe(result.pixels, result.engine_seconds)
        if self._ceiling.note_good():
            self._tell_ceiling()

    def _smaller(self, part: Members, trouble: Trouble) -> list[Members]:
        """The parts in which a batch that failed is tried again."""
        self._metrics.batch_split(trouble)
        if trouble == "error":
            return [(waiting,) for waiting in part]
        heights, widths = zip(*(waiting.place.canvas for waiting in part), strict=True)
        self._ceiling.lower(len(part), len(part) * max(heights) * max(widths))
        self._tell_ceiling()
        return halves(part)

    def _tell_ceiling(self) -> None:
        images, pixels = self.limits.max_batch_size, self.limits.max_batch_pixels
        self._metrics.may_have(images)
        logger.warning("a batch on %s now has at most %d images and %d pixels", self.name, images, pixels)

    def _still_wanted(self, members: Members) -> Members:
        """Those whom no other engine has, whose client is there, and whose deadline has not passed since they came."""
        now = asyncio.get_running_loop().time()
        for waiting in members:
            if waiting in self._owed and waiting.place.deadline <= now:
                waiting.fail(DeadlineError("the deadline passed before the image's turn"))
        return tuple(waiting for waiting in members if waiting in self._owed and not waiting.is_done)

    def _give_up(self, waiting: Waiting, error: Exception) -> None:
        """Have another engine answer an image that this one cannot, or else fail it."""
        if waiting in self._owed:  # and not with another one since this one was stuck
            self._owed.discard(waiting)
            if not self._owner.pass_on(waiting, self.name, error):
                waiting.fail(error)

    def _leave_alone(self) -> None:
        logger.error("the engine %s is stuck: it has been in one batch for %g s", self.name, self._stall_seconds)
        self._pass_on_all(hangs())

    def _pass_on_all(self, error: Exception | None) -> None:
        """Have other engines answer what is in the batch, as far as they can."""
        for waiting in tuple(self._owed):
            if self._owner.pass_on(waiting, self.name, error):
                self._owed.discard(waiting)

    async def _failed_on_one(self, trouble: Trouble) -> None:
        if self._reopening.is_due(trouble):
            self._pass_on_all(None)  # nobody waits for that who need not
            if not await self._reopening.open():
                self.lose("it cannot be opened again")
