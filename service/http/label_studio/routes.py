"""The routes that Label Studio 1.23 asks of an ML backend. It names others in its code (validate, delete, job_status,
duplicate_model), but asks for none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from service.errors import MediaTypeError, ParameterError
from service.http import paths
from service.http.exchange import CountedResponse, check_headers, receive, while_connected
from service.http.label_studio.pictures import PictureFetcher
from service.http.label_studio.prediction import answer_predict, model_version, tell_labels
from service.http.label_studio.requests import read_event, read_setup_request
from service.http.routes import refuse_repeated_parameters, service_of
from service.images.bodies import JSON
from service.settings import Settings

T = TypeVar("T")

label_studio_router = APIRouter(
    dependencies=[Depends(refuse_repeated_parameters)],
    include_in_schema=False,  # the protocol is described by itself
)


def picture_fetcher(settings: Settings) -> PictureFetcher | None:
    """What fetches the pictures of the Label Studio that the settings name, if they do."""
    if settings.label_studio_url is None:
        return None
    key = settings.label_studio_api_key
    return PictureFetcher(
        settings.label_studio_url,
        settings.label_studio_origins,
        key.get_secret_value().strip() or None if key is not None else None,
        settings.body_timeout_ms / 1000,
        settings.max_body_bytes,
    )


@label_studio_router.get(paths.LABEL_STUDIO_HEALTH)
async def backend_health(request: Request) -> dict[str, str]:
    """Whether pictures can be labelled now; else 503."""
    service_of(request).admission.check_ready()
    return {"status": "UP", "model_class": "DETR"}


@label_studio_router.post(paths.LABEL_STUDIO_SETUP)
async def setup(request: Request) -> dict[str, str]:
    """The version of the model for a project, or what is wrong with its labelling configuration."""
    pipeline = service_of(request).admission.pipeline()
    project, controls = await _read(request, read_setup_request)
    tell_labels(project, controls, pipeline.metadata)
    return {"model_version": model_version(pipeline)}


@label_studio_router.get(paths.LABEL_STUDIO_VERSIONS)
async def versions(request: Request) -> dict[str, Any]:
    """The versions of the model; there is one."""
    return {"versions": [model_version(service_of(request).admission.pipeline())]}


@label_studio_router.post(paths.LABEL_STUDIO_PREDICT)
async def predict(request: Request) -> Response:
    """Predictions for the tasks of a project."""
    service = service_of(request)
    fetcher: PictureFetcher = request.app.state.picture_fetcher
    content_type = check_headers(request, service.settings.max_body_bytes, check_is_json)
    service.admission.pipeline()
    with service.upload_memory.upload(content_type) as upload:
        await receive(request, upload, service.settings)
        content = await while_connected(request, answer_predict(request, service, fetcher, upload))
    return CountedResponse(content, service.upload_memory)


@label_studio_router.post(paths.LABEL_STUDIO_WEBHOOK, status_code=201)
async def webhook(request: Request) -> dict[str, Any]:
    """Label Studio tells of everything that happens in a project, and here nothing follows from it.

    Raises:
        ParameterError: it asks for a training.
    """
    if await _read(request, read_event) == "START_TRAINING":
        raise ParameterError("this service does not train; export the annotations, and train with `detr train`")
    return {}


def check_is_json(kind: str) -> None:
    """Raise MediaTypeError unless a content type is JSON's."""
    if kind != JSON:
        raise MediaTypeError("the content type has to be application/json")


async def _read(request: Request, read: Callable[[bytes], T]) -> T:
    """The body of a request without pictures, as `read` understands it. Raises what `check_headers`, `receive` and
    `read` do.
    """
    service = service_of(request)
    content_type = check_headers(request, service.settings.max_body_bytes, check_is_json)
    with service.upload_memory.upload(content_type) as upload:
        await receive(request, upload, service.settings)
        return await run_in_threadpool(lambda: read(upload.body()))
