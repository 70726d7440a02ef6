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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.engine import Engine
from service.batching.canvas_maker import CanvasMaker
from service.batching.engine_thread import BatchResult, EngineThread
from service.batching.former import DispatchReason
from service.batching.latency_line import CorrectedLine, LatencyLine
from service.batching.limits import BatchCeiling, BatchLimits
from service.batching.owners import RunnerOwner
from service.batching.waiting import Inference, Waiting
from service.errors import DeadlineError, DeviceFullError, DrainingError, EngineError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import DeviceMetrics

logger = logging.getLogger(__name__)

Members = tuple[Waiting, ...]  # of a batch
Trouble = Literal["memory", "error"]  # why a batch failed
# Images that failed alone, in a row, after which the session is opened again. Sessions are known to fail for good after
# their device's memory ran out; other errors are more often an image's own.
REOPEN_AFTER: dict[Trouble, int] = {"memory": 2, "error": 8}


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
        self.is_reopening = False
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
        self._failed_alone = 0  # images, in a row
        self._reopened = False  # since the last success
        self._stall_seconds = stall_seconds
        reason = f"it has been in one batch for {hang_seconds:g} s" if hang_seconds is not None else ""
        self._thread = EngineThread(engine, hang_seconds, lambda: self.lose(reason))
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

    def start(self, batch: Sequence[Waiting], pixels: int) -> None:
        """Begin to answer everybody in a batch of so many padded pixels, in as few inferences as the engine manages."""
        self.expected_seconds = self.line.seconds(pixels)
        self.free_at = asyncio.get_running_loop().time() + self.expected_seconds
        self._owed = set(batch)
        self._task = asyncio.create_task(self._run(tuple(batch)), name=f"engine {self.name}")

    def note_dispatch(self, reason: DispatchReason) -> None:
        """Note why its next batch goes with no more images."""
        self._metrics.batch_went(reason)

    def lose(self, reason: str) -> None:
        """Give the engine up."""
        if not self.is_lost:
            self.is_lost = True
            logger.critical("the engine %s is lost: %s", self.name, reason)
            self._owner.engine_lost(self.name)

    def abandon(self) -> None:
        """Have others answer its batch, as far as they can, and wait for it no longer."""
        self._pass_on_all(_hangs())
        for waiting in self._owed:
            waiting.fail(_hangs())
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
            self.free_at = loop.time()
            self._owner.engine_free()

    async def _run_part(self, part: Members) -> list[Members]:
        """Answer images, or return the smaller parts in which they are to be tried again."""
        part = self._still_wanted(part)
        if not part:
            return []
        if len(part) > self.limits.max_batch_size:  # which was lowered since the batch was formed
            return _halves(part)
        trouble = await self._infer(part)
        if trouble is None:
            return []
        if len(part) > 1:
            return self._smaller(part, trouble)
        self._give_up(part[0], _error_of_one(trouble))
        await self._failed_on_one(trouble)
        return []

    async def _infer(self, members: Members) -> Trouble | None:
        """Run and answer images, or say why that failed. The exception ends here, for it holds on to the engine."""
        went = asyncio.get_running_loop().time()
        canvas = self._canvases.take([waiting.item.image for waiting in members])
        thresholds = np.array([waiting.item.mask_threshold for waiting in members], dtype=np.float32)
        attention = [waiting.item.attention for waiting in members]
        try:
            result = await self._thread.run(canvas, thresholds, attention)
        except (DeviceMemoryError, MemoryError) as error:
            logger.warning("memory ran out in a batch of %d on %s: %s", len(members), self.name, str(error))
            return "memory"
        except Exception:
            logger.exception("the engine %s failed on a batch of %d", self.name, len(members))
            return "error"
        self._note_success(result)
        for waiting, outputs in zip(members, result.outputs, strict=True):
            # Right, too, where it came so late that another engine has the image by now: who is first answers it.
            queued = went - waiting.place.arrived
            waiting.answer(Inference(outputs, self.name, len(members), queued, result.seconds))
            self._owed.discard(waiting)
        return None

    def _note_success(self, result: BatchResult) -> None:
        self._failed_alone, self._reopened = 0, False
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
        return _halves(part)

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
        self._pass_on_all(_hangs())

    def _pass_on_all(self, error: Exception | None) -> None:
        """Have other engines answer what is in the batch, as far as they can."""
        for waiting in tuple(self._owed):
            if self._owner.pass_on(waiting, self.name, error):
                self._owed.discard(waiting)

    async def _failed_on_one(self, trouble: Trouble) -> None:
        self._failed_alone += 1
        if self._failed_alone >= REOPEN_AFTER[trouble] and not self._reopened:
            logger.warning("%d images failed alone in a row: %s is opened again", self._failed_alone, self.name)
            self._reopened = self.is_reopening = True
            self._pass_on_all(None)  # nobody waits for that who need not
            try:
                await self._reopen()
            finally:
                self.is_reopening = False

    async def _reopen(self) -> None:
        try:
            await self._thread.reopen(lambda: self._owner.reopen_engine(self.name))
        except Exception:
            logger.exception("the engine %s cannot be opened again", self.name)
            self._metrics.engine_reopened("failed")
            self.lose("it cannot be opened again")
        else:
            logger.warning("the engine %s has been opened again", self.name)
            self._metrics.engine_reopened("opened")


def _halves(members: Members) -> list[Members]:
    middle = (len(members) + 1) // 2
    return [members[:middle], members[middle:]]


def _error_of_one(trouble: Trouble) -> Exception:
    if trouble == "memory":
        return DeviceFullError("there is no memory for this image at present, please try again later")
    return EngineError("the engine failed on this image")


def _hangs() -> EngineError:
    return EngineError("the engine hangs on this image")
