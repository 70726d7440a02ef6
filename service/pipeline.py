"""The way of an image through the service: decode, preprocess, queue, infer, postprocess, encode.

Decoding and encoding run in a pool of threads, inference in the batcher's thread, and nothing but waiting on
the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from service.admission import Admission
from service.answers import Content, Task
from service.batch_former import Limits
from service.batcher import Batcher, Item
from service.decode import ImageLimits
from service.errors import DeadlineError
from service.latency_line import UNMEASURED, LatencyLine
from service.loading import LoadedModel
from service.metrics import Metrics
from service.prepare import prepare
from service.settings import Settings
from service.trace import Trace
from service.upload import Upload

T = TypeVar("T")


class Pipeline:
    """A loaded model with everything around it that answers requests. Made on the event loop."""

    def __init__(
        self, model: LoadedModel, settings: Settings, metrics: Metrics, cpu: Executor, line: LatencyLine = UNMEASURED
    ) -> None:
        self.metadata = model.metadata
        # What GET /model says, made once.
        self.description = json.dumps(json.loads(model.metadata.to_json()) | {"device": model.engine.device}).encode()
        self.admission = Admission(settings.max_batch_size + settings.max_queue_size)
        limits = Limits(settings.max_batch_size, settings.max_batch_pixels, settings.max_queue_delay_ms / 1000)
        self.batcher = Batcher(model.engine, metrics, limits, line)
        self._limits = ImageLimits(settings.max_pixels, settings.max_side)
        self._reduced_decode = settings.reduced_decode
        self._timeout = settings.request_timeout_ms / 1000  # seconds
        self._cpu = cpu

    async def answer(self, upload: Upload, task: Task, trace: Trace) -> Content:
        """Answer one uploaded image; its bytes are released as soon as they are decoded.

        Raises:
            UnavailableError: no place is free, or the service is shutting down.
            DeadlineError: it took too long.
            ServiceError: whatever else `prepare`, the batcher or the task raise for a client to see.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        with self.admission.place():
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._answer(upload, task, trace, deadline)
            except TimeoutError:
                raise DeadlineError(f"the answer took longer than {1000 * self._timeout:g} ms") from None

    async def _answer(self, upload: Upload, task: Task, trace: Trace, deadline: float) -> Content:
        rule, keep = self.metadata.resize, task.keeps_image
        # The body is named in here only, so that to release the upload is to free it.
        prepared = await self._on_cpu(
            partial(prepare, upload.body, upload.content_type, self._limits, rule, trace, keep, self._reduced_decode)
        )
        upload.release()
        inference = await self.batcher.submit(Item(prepared.resized, task.mask_threshold), deadline)
        trace.batch_size = inference.batch_size
        trace.add("queue", inference.queue_seconds)
        trace.add("infer", inference.infer_seconds)
        return await self._on_cpu(partial(task.answer, self.metadata, prepared, inference.outputs, trace))

    async def _on_cpu(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._cpu, work)
