"""The engine, and what is done when it fails.

- Memory runs out in a batch: its halves are run instead, down to single images, and for a while no batch is that large.
- A batch fails for any other reason: each of its images is run once more, alone, so that one that the engine cannot
  take does not spoil the others.
- An image fails alone: it gets the error. When several in a row do, the session itself may be broken, and is opened
  again, once; only a success shows that this helped.
- The engine hangs, or cannot be opened again: only a new process helps, and whoever owns this one is told.

The invariant: everybody in a batch is answered, with their own outputs or an exception, whatever fails.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.engine import Engine
from service.batching.batch_run import BatchResult, run_batch
from service.batching.canvas_maker import CanvasMaker
from service.batching.latency_line import CorrectedLine, LatencyLine
from service.batching.limits import BatchCeiling, BatchLimits
from service.batching.waiting import Inference, Waiting
from service.errors import DeadlineError, DeviceFullError, DrainingError, EngineError
from service.process.watched_threads import WatchedThreads

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import Metrics

logger = logging.getLogger(__name__)

Members = tuple[Waiting, ...]  # of a batch
Trouble = Literal["memory", "error"]  # why a batch failed
# Images that failed alone, in a row, after which the session is opened again. Sessions are known to fail for good after
# their device's memory ran out; other errors are more often an image's own.
REOPEN_AFTER: dict[Trouble, int] = {"memory": 2, "error": 8}


class EngineOwner(Protocol):
    """What the runner asks of whoever owns the engine, because it cannot do it by itself."""

    def reopen_engine(self) -> Engine:
        """Open the same model again; called in the engine's thread. Raises what goes wrong."""

    def engine_lost(self) -> None:
        """Learn, on the event loop, that only a new process helps."""


class EngineRunner:
    """Runs one batch at a time. Used on the event loop only."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        limits: BatchLimits,
        line: LatencyLine,
        canvases: CanvasMaker,
        owner: EngineOwner,
        hang_seconds: float | None,
    ) -> None:
        """Make a runner.

        Args:
            engine: what runs batches.
            metrics: notes what becomes of them.
            limits: what a batch must not exceed, while memory lasts.
            line: what a batch costs, as it was measured.
            canvases: makes batches of images.
            owner: of the engine.
            hang_seconds: that one batch may take before the engine is lost; None is for ever.
        """
        self.is_reopening = False
        self.is_lost = False
        self._engine: Engine | None = engine
        self._metrics = metrics
        self._ceiling = BatchCeiling(limits)
        self._line = CorrectedLine(line)
        self._canvases = canvases
        self._owner = owner
        self._failed_alone = 0  # images, in a row
        self._reopened = False  # since the last success
        reason = f"it has been in one batch for {hang_seconds:g} s" if hang_seconds is not None else ""
        self._thread = WatchedThreads("engine", 1, hang_seconds, lambda: self.lose(reason))
        metrics.max_batch_size.set(limits.max_batch_size)

    @property
    def limits(self) -> BatchLimits:
        """What a batch must not exceed at present."""
        return self._ceiling.limits

    @property
    def line(self) -> LatencyLine:
        """What a batch costs at present."""
        return self._line.line

    def busy_seconds(self) -> float:
        """How long the engine has been in its present batch; 0 when it is free."""
        return self._thread.busy_seconds()

    async def run(self, batch: Sequence[Waiting]) -> None:
        """Answer everybody in a batch, in as few inferences as the engine manages."""
        parts: deque[Members] = deque([tuple(batch)])
        try:
            while parts:
                parts.extendleft(reversed(await self._run_part(parts.popleft())))
        finally:
            # Only a cancellation, which ends the service, leaves anybody unanswered here.
            for waiting in batch:
                waiting.fail(DrainingError("the service shut down before the answer"))

    def lose(self, reason: str) -> None:
        """Give the engine up."""
        if not self.is_lost:
            self.is_lost = True
            logger.critical("the engine is lost: %s", reason)
            self._owner.engine_lost()

    def close(self) -> None:
        """Run nothing more, and let the engine go; only a thread that hangs in it keeps it."""
        self._thread.close()
        self._engine = None

    async def _run_part(self, part: Members) -> list[Members]:
        """Answer images, or return the smaller parts in which they are to be tried again."""
        part = _still_wanted(part)
        if not part:
            return []
        if len(part) > self.limits.max_batch_size:  # which was lowered since the batch was formed
            return _halves(part)
        trouble = await self._infer(part)
        if trouble is None:
            return []
        if len(part) > 1:
            return self._smaller(part, trouble)
        part[0].fail(_error_of_one(trouble))
        await self._failed_on_one(trouble)
        return []

    async def _infer(self, members: Members) -> Trouble | None:
        """Run and answer images, or say why that failed. The exception ends here, for it holds on to the engine."""
        went = asyncio.get_running_loop().time()
        try:
            result = await self._thread.run(self._work(members))
        except (DeviceMemoryError, MemoryError) as error:
            logger.warning("memory ran out in a batch of %d: %s", len(members), str(error))
            return "memory"
        except Exception:
            logger.exception("the engine failed on a batch of %d", len(members))
            return "error"
        self._note_success(result)
        for waiting, outputs in zip(members, result.outputs, strict=True):
            waiting.answer(Inference(outputs, len(members), went - waiting.place.arrived, result.seconds))
        return None

    def _work(self, members: Members) -> Callable[[], BatchResult]:
        canvas = self._canvases.take([waiting.item.image for waiting in members])
        thresholds = np.array([waiting.item.mask_threshold for waiting in members], dtype=np.float32)
        if (engine := self._engine) is None:
            raise RuntimeError("there is no engine any more")
        clock = asyncio.get_running_loop().time
        return lambda: run_batch(engine, canvas, thresholds, clock)

    def _note_success(self, result: BatchResult) -> None:
        self._failed_alone, self._reopened = 0, False
        self._metrics.batch_succeeded(len(result.outputs), result.padding_ratio)
        self._line.observe(result.pixels, result.engine_seconds)
        if self._ceiling.note_good():
            self._tell_ceiling()

    def _smaller(self, part: Members, trouble: Trouble) -> list[Members]:
        """The parts in which a batch that failed is tried again."""
        self._metrics.batch_splits.labels(reason=trouble).inc()
        if trouble == "error":
            return [(waiting,) for waiting in part]
        heights, widths = zip(*(waiting.place.canvas for waiting in part), strict=True)
        self._ceiling.lower(len(part), len(part) * max(heights) * max(widths))
        self._tell_ceiling()
        return _halves(part)

    def _tell_ceiling(self) -> None:
        limits = self.limits
        self._metrics.max_batch_size.set(limits.max_batch_size)
        logger.warning(
            "a batch now has at most %d images and %d pixels", limits.max_batch_size, limits.max_batch_pixels
        )

    async def _failed_on_one(self, trouble: Trouble) -> None:
        self._failed_alone += 1
        if self._failed_alone >= REOPEN_AFTER[trouble] and not self._reopened:
            logger.warning("%d images in a row failed alone: the engine is opened again", self._failed_alone)
            self._reopened = self.is_reopening = True
            self._engine = None  # its memory has to be free before there is another
            try:
                await self._reopen()
            finally:
                self.is_reopening = False

    async def _reopen(self) -> None:
        def collect_and_reopen() -> Engine:
            gc.collect()  # what failed may still be held in a traceback's circle
            return self._owner.reopen_engine()

        try:
            self._engine = await self._thread.run(collect_and_reopen)
        except Exception:
            logger.exception("the engine cannot be opened again")
            self._metrics.engine_reopens.labels(result="failed").inc()
            self.lose("it cannot be opened again")
        else:
            logger.warning("the engine has been opened again")
            self._metrics.engine_reopens.labels(result="opened").inc()


def _still_wanted(members: Members) -> Members:
    """Those whose client is there and whose deadline has not passed, which can happen between two tries."""
    now = asyncio.get_running_loop().time()
    for waiting in members:
        if waiting.place.deadline <= now:
            waiting.fail(DeadlineError("the deadline passed before the image's turn"))
    return tuple(waiting for waiting in members if not waiting.is_done)


def _halves(members: Members) -> list[Members]:
    middle = (len(members) + 1) // 2
    return [members[:middle], members[middle:]]


def _error_of_one(trouble: Trouble) -> Exception:
    if trouble == "memory":
        return DeviceFullError("there is no memory for this image at present, please try again later")
    return EngineError("the engine failed on this image")
