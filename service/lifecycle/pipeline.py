"""The way of an image through the service: decode, preprocess, queue, infer, postprocess, encode.

Decoding and encoding run in a pool of threads, inference in the batcher's thread, and nothing but waiting on
the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from model.runtime.artifact.metadata import Metadata
from model.runtime.decode import ImageLimits
from service.batching.batcher import Batcher
from service.batching.engine_runner import Rescue
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from service.batching.waiting import EngineInput
from service.errors import DeadlineError, EngineRestartError, StalledError
from service.images.answers import Content, Task
from service.images.prepare import prepare
from service.lifecycle.admission import Admission, Occupancy
from service.lifecycle.loading import LoadedModel
from service.lifecycle.uploads import Upload
from service.process.metrics import Metrics
from service.process.trace import Trace
from service.settings import Settings

T = TypeVar("T")


class Pipeline:
    """A loaded model with everything around it that answers requests. Made on the event loop."""

    def __init__(
        self,
        model: LoadedModel,
        settings: Settings,
        metrics: Metrics,
        cpu: Executor,
        admission: Admission,
        line: LatencyLine = UNMEASURED,
        rescue: Rescue = Rescue(),  # noqa: B008  # it is frozen
    ) -> None:
        self.metadata = model.metadata
        self.description = _describe(model)  # what GET /model says, made once
        self.admission = admission
        limits = BatchLimits(
            settings.max_batch_size,
            settings.max_batch_pixels,
            settings.max_queue_delay_ms / 1000,
            model.canvas_multiple,
        )
        self.batcher = Batcher(model.engine, metrics, limits, line, rescue)
        self._answering = Occupancy()  # of this pipeline, where the admission is of all
        self._limits = ImageLimits(settings.max_pixels, settings.max_side)
        self._reduced_decode = settings.reduced_decode
        self._timeout = settings.request_timeout_ms / 1000  # seconds
        self._patience = settings.engine_stall_ms / 1000  # seconds
        self._cpu = cpu

    @property
    def is_stalled(self) -> bool:
        """Whether the engine has been in one batch for too long."""
        return self.batcher.engine.busy_seconds() > self._patience

    def check(self) -> None:
        """Raise UnavailableError, saying why, unless the engine runs.

        While it does not, nobody is let in: they would wait only to be told at their deadline.
        """
        engine = self.batcher.engine
        if engine.is_reopening:
            raise EngineRestartError("the engine is being opened again, please try again later")
        if engine.is_lost:
            raise EngineRestartError("the engine has failed, please try again later")
        if self.is_stalled:
            raise StalledError(f"the engine has been in one batch for {engine.busy_seconds():.0f} s")

    async def answer(self, upload: Upload, make_task: Callable[[Metadata], Task], trace: Trace) -> Content:
        """Answer one uploaded image; its bytes are released as soon as they are decoded for the last time.

        Args:
            upload: the image.
            make_task: what is wanted of it, of a model with such metadata.
            trace: takes the times.

        Raises:
            UnavailableError: no place is free, the engine does not run, or the service is shutting down.
            DeadlineError: it took too long.
            ServiceError, ImageError, OutputError: whatever else `prepare`, the batcher or the task raise.
        """
        self.check()
        deadline = asyncio.get_running_loop().time() + self._timeout
        with self.admission.place(), self._answering.place():
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._answer(upload, make_task(self.metadata), trace, deadline)
            except TimeoutError:
                raise DeadlineError(f"the answer took longer than {1000 * self._timeout:g} ms") from None

    async def finish(self) -> None:
        """Return once every request that this pipeline has taken is answered, and let its engine go."""
        self.batcher.hurry()
        await self._answering.wait_until_empty()
        await self.batcher.close(0)

    async def _answer(self, upload: Upload, task: Task, trace: Trace, deadline: float) -> Content:
        rule, draws = self.metadata.resize, task.draws
        # The body is named in here only, so that to release the upload is to free it.
        prepared = await self._on_cpu(
            partial(prepare, upload.body, upload.content_type, self._limits, rule, trace, draws, self._reduced_decode)
        )
        if not draws:
            upload.release()
        inference = await self.batcher.submit(EngineInput(prepared.resized, task.mask_threshold), deadline)
        trace.batch_size = inference.batch_size
        trace.add("queue", inference.queue_seconds)
        trace.add("infer", inference.infer_seconds)
        return await self._on_cpu(partial(task.answer, self.metadata, prepared, inference.outputs, trace))

    async def _on_cpu(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._cpu, work)


def _describe(model: LoadedModel) -> bytes:
    """The metadata, and by what an operator sees which file is served, and since when."""
    described = json.loads(model.metadata.to_json()) | {
        "device": model.engine.device,
        "precision": model.engine.precision,
        "digest": model.digest,
        "loaded_at": datetime.now(UTC).isoformat(timespec="seconds"),  # noqa: TID251  # it is told
    }
    return json.dumps(described).encode()
