"""The way of an image through the service: decode, preprocess, queue, infer, postprocess, encode.

Decoding and encoding run in a pool of threads, inference in the batcher's thread, and nothing but waiting on
the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from model.runtime.decode_budget import LargeWorkError
from model.runtime.engines.engine import Engine
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.image_formats import words_of_open
from service.batching.batcher import Batcher
from service.batching.limits import BatchLimits
from service.batching.waiting import EngineInput
from service.errors import DeadlineError, ParameterError
from service.images.prepare import ImageFinder, ImageRules, prepare
from service.images.several_images import ImagePart, SeveralImagesError, check_image_count
from service.images.task import Content, Prepared, Task
from service.lifecycle.cpu_pool import CpuPool
from service.lifecycle.host import ModelHost
from service.lifecycle.in_flight import InFlight
from service.lifecycle.loading import LoadedModel
from service.lifecycle.uploads import Upload
from service.lifecycle.warm_up import WarmModel
from service.process.metrics import Metrics
from service.process.trace import Trace
from service.settings import Settings

A = TypeVar("A")

# Bytes. Only to put together and look through a larger one takes 15 to 40 ms, whatever it holds, and eight of them
# would have all threads for a tenth of a second and more. Cameras' pictures of 12 megapixels have 3 to 5 million.
LARGE_UPLOAD = 8 * 2**20


class Pipeline:
    """A loaded model with everything around it that answers requests. Made on the event loop."""

    def __init__(
        self,
        warm: WarmModel,
        settings: Settings,
        metrics: Metrics,
        cpu: CpuPool,
        admitted: InFlight[object],
        host: ModelHost,
    ) -> None:
        """Make the pipeline of a model.

        Args:
            warm: the model, and what its batches cost on each of its engines.
            settings: limits and timeouts.
            metrics: notes what becomes of batches.
            cpu: decodes and encodes.
            admitted: uploads of all models, of which this one's are a part.
            host: asked for an engine to be opened again, and told when the last one is lost.
        """
        model = warm.model
        self.metadata = model.metadata
        self.description = describe(model, settings.formats)  # what GET /model says, made once
        self.in_flight: InFlight[object] = InFlight(within=admitted)  # images
        limits = BatchLimits(
            settings.max_batch_size,
            settings.max_batch_pixels,
            settings.max_queue_delay_ms / 1000,
            model.canvas_multiple,
            same_size=model.metadata.padding_leaks,
        )
        stall_seconds = settings.engine_stall_ms / 1000
        self.batcher = Batcher(
            model.engines, metrics, limits, warm.lines, self, stall_seconds, settings.hang_seconds
        )  # fmt: skip
        self._host = host
        self.digest = model.digest  # of its file
        self._is_retired = False
        self._rules = ImageRules.of(settings, model.metadata, model.canvas_multiple)
        self._rules_for_now = self._rules.for_now()
        self._timeout = settings.request_timeout_ms / 1000  # seconds
        self._max_images = min(settings.max_images_per_request, settings.capacity(len(model.engines)))
        self._cpu = cpu

    async def answer(self, upload: Upload, task: Task, trace: Trace) -> Content | list[Content | Exception]:
        """Answer an upload; its bytes are released as soon as they are decoded for the last time.

        Of an upload of several images there is a list, in their order, with what failed of each.

        Args:
            upload: the image or images, in flight from the call on.
            task: what is wanted of it.
            trace: takes the times.

        Raises:
            DeadlineError: it took too long.
            ServiceError, ImageError, OutputError: whatever else `prepare`, the batcher or the task raise.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        with self.in_flight.member(upload):
            try:
                return await self._answer_in_time(upload, task, trace, deadline)
            except SeveralImagesError as several:
                parts = several.parts
            return await self._answer_each(parts, upload, task, trace, deadline)

    def retire(self) -> None:
        """Note that another model serves from now on, so that little more is coming."""
        self._is_retired = True
        self.batcher.hurry()

    async def finish(self) -> None:
        """Return once every upload that this pipeline has taken is answered, and let its engine go."""
        await self.in_flight.wait_until_empty()
        await self.batcher.close(0)

    def reopen_engine(self, name: str) -> Engine:
        """See EngineOwner."""
        return self._host.reopen(self.digest, name)

    def engine_lost(self) -> None:
        """See EngineOwner. Of a model that was replaced, nobody needs the engines."""
        if not self._is_retired:
            self._host.engine_lost()

    # The stages of one image, whoever asks for it: a request, or a program that has no server.

    async def prepare(
        self, preparing: Callable[[ImageRules], Prepared], *, is_large: bool = False
    ) -> tuple[Prepared, bool]:
        """Have an image prepared in a thread; whether it is a large one, which waits for others of its kind.

        Args:
            preparing: does it by these rules; called once more if it raises LargeWorkError.
            is_large: whether that is known before.
        """
        if not is_large:
            with suppress(LargeWorkError):
                return await self._cpu.run(partial(preparing, self._rules_for_now)), False
        return await self._cpu.run_large(partial(preparing, self._rules)), True

    async def infer(
        self, prepared: Prepared, mask_threshold: float, trace: Trace, deadline: float, attention: bool = False
    ) -> ImageOutputs:
        """Run an image in a batch with others. Arguments and exceptions are those of `Batcher.submit`."""
        inference = await self.batcher.submit(EngineInput(prepared.resized, mask_threshold, attention), deadline)
        trace.inferred(inference.device, inference.batch_size, inference.queue_seconds, inference.infer_seconds)
        return inference.outputs

    async def make_answer(self, answering: Callable[[], A], *, is_large: bool) -> A:
        """Have an answer made in a thread; one that decodes a large image again waits for others of them."""
        return await (self._cpu.run_large(answering) if is_large else self._cpu.run(answering))

    async def _answer_in_time(
        self, upload: Upload, task: Task, trace: Trace, deadline: float, part: ImagePart | None = None
    ) -> Content:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._answer(upload, task, trace, deadline, part)
        except TimeoutError:
            raise DeadlineError(f"the answer took longer than {1000 * self._timeout:g} ms") from None

    async def _answer_each(
        self, parts: Sequence[ImagePart], upload: Upload, task: Task, trace: Trace, deadline: float
    ) -> list[Content | Exception]:
        """Answer the parts of an upload as if each were a request, but for the bytes, which all of them hold until the
        last is answered.

        Raises:
            ParameterError: what is asked for is a picture, of which an answer holds one.
            QueueFullError, TooManyImagesError: there are too many, for now or at all.
        """
        if not task.is_json:
            raise ParameterError("several images are answered in JSON only; send one where the answer is a picture")
        check_image_count(len(parts), self._max_images)
        self._host.check_room(len(parts) - 1)

        async def outcome(part: ImagePart, part_trace: Trace) -> Content | Exception:
            try:
                content = await self._answer_in_time(upload, task, part_trace, deadline, part)
                upload.hold(len(content.body))
            except Exception as error:
                return error
            return content

        traces = [trace.of_part() for _ in parts]
        with ExitStack() as places:
            for _ in parts[1:]:  # the upload itself has one
                places.enter_context(self.in_flight.member(object()))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(outcome(*each)) for each in zip(parts, traces, strict=True)]
        trace.take_parts(traces)
        return [task.result() for task in tasks]

    async def _answer(
        self, upload: Upload, task: Task, trace: Trace, deadline: float, part: ImagePart | None
    ) -> Content:
        prepared, is_large = await self._prepare_upload(upload, task, trace, part)
        if not task.draws and part is None:
            upload.release()
        outputs = await self.infer(prepared, task.mask_threshold, trace, deadline, task.attention)
        answering = partial(task.answer, self.metadata, prepared, outputs, trace)
        return await self.make_answer(answering, is_large=is_large and task.draws)

    async def _prepare_upload(
        self, upload: Upload, task: Task, trace: Trace, part: ImagePart | None
    ) -> tuple[Prepared, bool]:
        image_in: ImageFinder = task.image_in if part is None else lambda *_: part()
        # The body is named in here only, so that to release the upload is to free it.
        return await self.prepare(
            lambda rules: prepare(upload.body(), upload.content_type, rules, trace, task.draws, image_in),
            is_large=part is None and len(upload) > LARGE_UPLOAD,
        )


def describe(model: LoadedModel, formats: Collection[str]) -> bytes:
    """The metadata, the image formats that are opened when these are asked for, and by what an operator sees which file
    is served, and since when.
    """
    described = json.loads(model.metadata.to_json()) | {
        "formats": words_of_open(formats),
        "device": model.device,
        "devices": list(model.engines),
        "precision": model.precision,
        "digest": model.digest,
        "loaded_at": datetime.now(UTC).isoformat(timespec="seconds"),  # noqa: TID251  # it is told
    }
    return json.dumps(described).encode()
