"""From Label Studio's request for predictions to its answer: pictures are fetched and labelled a few at a time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from model.runtime.artifact.metadata import Metadata
from service.errors import DeadlineError, LabellingError
from service.http.error_answers import TABLE, message_of, row_of
from service.http.label_studio.labelling import Control, match
from service.http.label_studio.pictures import PictureFetcher
from service.http.label_studio.regions import LabelTask, Regions
from service.http.label_studio.requests import PredictRequest, TaskPicture, read_predict_request
from service.images.task import Content
from service.lifecycle.pipeline import Pipeline
from service.lifecycle.service import Service
from service.lifecycle.uploads import Upload
from service.process.trace import Trace, trace_of

logger = logging.getLogger(__name__)

_Outcome = Regions | Exception


def model_version(pipeline: Pipeline) -> str:
    """What Label Studio calls the model: another one for another file, so that it asks for predictions anew."""
    return f"{pipeline.metadata.name} {pipeline.digest[:8]}"


def tell_labels(project: str, controls: Sequence[Control], metadata: Metadata) -> None:
    """Log which labels of a project the model knows nothing of.

    Raises:
        LabellingError: it can label nothing.
    """
    LabelTask(metadata, controls)
    for control in controls:
        unmatched = match(control, metadata.categories).unmatched
        if control.shape != "rectanglelabels" and metadata.mask_stride is None:
            logger.warning(
                "project %r of Label Studio: %s has no masks for %r", project, metadata.name, control.name[:40]
            )
        elif unmatched:
            names = ", ".join(repr(name[:40]) for name in unmatched[:10])
            more = f" and {len(unmatched) - 10} more" if len(unmatched) > 10 else ""
            logger.warning(
                "project %r of Label Studio: %s has no class for the labels %s%s", project, metadata.name, names, more
            )


async def answer_predict(request: Request, service: Service, fetcher: PictureFetcher, upload: Upload) -> Content:
    """Label the pictures of a request that has arrived. Of a task whose picture fails there is no prediction, so that
    Label Studio asks for it again, and neither of one for which there was no time.

    Raises:
        BrokenJsonError, LabellingError: see `read_predict_request`.
        Exception: of the first picture, where no picture could be labelled.
    """
    version = model_version(service.admission.pipeline())
    asked = await run_in_threadpool(lambda: read_predict_request(upload.body()))
    labelling = _Labelling(service, fetcher, upload, trace_of(request.scope))
    outcomes = await labelling.of(asked.pictures, service.settings.label_studio_timeout_ms / 1000)
    _tell_failures(asked, outcomes, trace_of(request.scope))
    return Content(_body(asked, outcomes, version), "application/json")


class _Labelling:
    """Labels the pictures of one request."""

    def __init__(self, service: Service, fetcher: PictureFetcher, upload: Upload, trace: Trace) -> None:
        self._service = service
        self._fetcher = fetcher
        self._upload = upload
        self._trace = trace

    async def of(self, pictures: Sequence[TaskPicture], seconds: float) -> list[_Outcome]:
        """The outcome of each. A batch of them at a time, so that others have their turn."""
        late = DeadlineError(f"a picture was not labelled within {1000 * seconds:g} ms")
        outcomes: list[_Outcome] = [late] * len(pictures)
        traces = [self._trace.of_part() for _ in pictures]
        waiting = iter(range(len(pictures)))

        async def work() -> None:
            for index in waiting:
                outcomes[index] = await self._outcome(pictures[index], traces[index])

        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for _ in range(min(self._service.settings.max_batch_size, len(pictures))):
                    group.create_task(work())
        except TimeoutError:
            pass  # those that were not reached stay late
        self._trace.take_parts(traces)
        return outcomes

    async def _outcome(self, picture: TaskPicture, trace: Trace) -> _Outcome:
        def task(metadata: Metadata) -> LabelTask:
            return LabelTask(metadata, picture.controls, picture.part)

        try:
            with self._service.upload_memory.upload("") as fetched:
                if picture.part is None:
                    await self._fetcher.fetch(picture.source, picture.task_id, fetched)
                content = await self._service.answer(fetched, task, trace)
                assert isinstance(content, Regions)
                self._upload.hold(len(content.body))
        except Exception as error:
            return error
        return content


def _tell_failures(asked: PredictRequest, outcomes: Sequence[_Outcome], trace: Trace) -> None:
    """Log and count what failed; raise the first failure where nothing else came of the request."""
    errors: list[Exception] = [LabellingError("a task has no picture where its configuration says")] * asked.without
    errors += [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    rows = [row_of(error) for error in errors]
    trace.image_errors = [(row.status, row.code) for row in rows]
    for error, row in zip(errors, rows, strict=True):
        if row is TABLE[Exception]:  # which nobody foresaw
            logger.error("a picture of request %s failed", trace.request_id, exc_info=error)
    if errors:
        first = message_of(errors[0], rows[0])
        logger.warning("%d pictures of Label Studio have no prediction, the first: %s", len(errors), first)
    if errors and not any(isinstance(outcome, Regions) for outcome in outcomes):
        raise errors[0]


def _body(asked: PredictRequest, outcomes: Sequence[_Outcome], version: str) -> bytes:
    """A prediction of each task, in their order; a task with a picture that failed has an empty list of them."""
    whole: list[Regions | None] = [None] * asked.tasks
    failed = {
        picture.task
        for picture, outcome in zip(asked.pictures, outcomes, strict=True)
        if isinstance(outcome, Exception)
    }
    for picture, outcome in zip(asked.pictures, outcomes, strict=True):
        if isinstance(outcome, Regions) and picture.task not in failed:
            whole[picture.task] = outcome if (before := whole[picture.task]) is None else _together(before, outcome)
    name = json.dumps(version).encode()
    results = b",".join(b"[]" if regions is None else _prediction(regions, name) for regions in whole)
    return b'{"results":[' + results + b'],"model_version":' + name + b"}"


def _prediction(regions: Regions, version: bytes) -> bytes:
    mean = sum(regions.scores) / max(1, len(regions.scores))
    return b'{"result":[%b],"score":%.4f,"model_version":%b}' % (regions.body, mean, version)


def _together(one: Regions, other: Regions) -> Regions:
    bodies = [regions.body for regions in (one, other) if regions.body]
    return replace(one, body=b",".join(bodies), scores=[*one.scores, *other.scores])
